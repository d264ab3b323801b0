//! Each limit of a body, on both sides: what is just allowed is read, one more is refused and says where.

use framegate_routes::json::{ErrorKind, Limits, read};

fn kind_of(text: &[u8], limits: Limits) -> Result<(), ErrorKind> {
    read(text, limits).map(drop).map_err(|error| error.kind)
}

#[test]
fn bytes() {
    let limits = Limits {
        bytes_max: 6,
        ..Limits::default()
    };
    assert_eq!(kind_of(b"\"1234\"", limits), Ok(()));
    assert_eq!(kind_of(b"\"12345\"", limits), Err(ErrorKind::BytesMax(6)));
    // Also where what is too much is nothing but space.
    assert_eq!(kind_of(b"[1]    ", limits), Err(ErrorKind::BytesMax(6)));
}

#[test]
fn bytes_by_default() {
    let limits = Limits::default();
    let text = |bytes: usize| [b"\"", &*vec![b'x'; bytes - 2], b"\""].concat();
    assert_eq!(limits.bytes_max, 4 << 20);
    assert_eq!(kind_of(&text(limits.bytes_max), limits), Ok(()));
    let refused = kind_of(&text(limits.bytes_max + 1), limits);
    assert_eq!(refused, Err(ErrorKind::BytesMax(limits.bytes_max)));
}

#[test]
fn depth() {
    for depth_max in [1, 2, Limits::default().depth_max] {
        let limits = Limits {
            depth_max,
            ..Limits::default()
        };
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let text = |depth: usize| {
                let inner = if open == "[" { "" } else { "1" };
                [&*open.repeat(depth), inner, &close.repeat(depth)].concat()
            };
            assert_eq!(kind_of(text(depth_max).as_bytes(), limits), Ok(()));
            let refused = kind_of(text(depth_max + 1).as_bytes(), limits);
            assert_eq!(refused, Err(ErrorKind::DepthMax(depth_max)));
        }
        // A list behind a list is no deeper.
        let side_by_side = format!("[{}1]", "1,".repeat(200));
        assert_eq!(kind_of(side_by_side.as_bytes(), limits), Ok(()));
    }
}

#[test]
fn digits() {
    let limits = Limits {
        digits_max: 5,
        ..Limits::default()
    };
    for sign in ["", "-"] {
        assert_eq!(kind_of(format!("{sign}12345").as_bytes(), limits), Ok(()));
        let refused = kind_of(format!("{sign}123456").as_bytes(), limits);
        assert_eq!(refused, Err(ErrorKind::DigitsMax(5)));
    }
}
