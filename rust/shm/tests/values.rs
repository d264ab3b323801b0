//! Maps: what is written is read, what is broken is refused.

use framegate_shm::{Value, decode_values, encode_values};

#[test]
fn every_type_comes_back() {
    let values = [
        ("no", Value::Bool(false)),
        ("yes", Value::Bool(true)),
        ("least", Value::Int(i64::MIN)),
        ("most", Value::Int(i64::MAX)),
        ("pi", Value::Float(3.25)),
        ("text", Value::Str("grün")),
        ("empty", Value::Str("")),
        ("raw", Value::Bytes(&[0, 255])),
        ("none", Value::Bytes(&[])),
    ];
    let bytes = encode_values(&values).unwrap();
    assert_eq!(decode_values(&bytes).unwrap(), values);
}

#[test]
fn nothing_is_the_empty_map() {
    assert_eq!(decode_values(&[]).unwrap(), []);
    assert_eq!(encode_values(&[]).unwrap(), [0x80]);
    assert_eq!(decode_values(&[0x80]).unwrap(), []);
}

#[test]
fn broken_maps_and_keys_are_refused_with_a_reason() {
    let error = decode_values(&[0x81, 0xa1, b'k', 0xc0]).unwrap_err();
    assert!(error.is_invalid_argument());
    assert!(error.to_string().contains("at byte 1"), "{error}");
    for key in [String::new(), "k".repeat(65)] {
        assert!(
            encode_values(&[(&key, Value::Int(1))])
                .unwrap_err()
                .is_invalid_argument()
        );
    }
    let longest = encode_values(&[(&"k".repeat(64), Value::Int(1))]).unwrap();
    assert_eq!(longest.len(), 1 + 2 + 64 + 1);
    let twice = encode_values(&[("a", Value::Int(1)), ("a", Value::Int(2))]).unwrap_err();
    assert!(twice.to_string().contains("twice"), "{twice}");
}
