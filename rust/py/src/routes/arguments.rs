//! Python objects of values that were checked.

use std::sync::{Mutex, PoisonError};

use framegate_routes::{
    json::{Number, Value},
    parameter::{Date, Parsed, Time},
};
use pyo3::{
    prelude::*,
    types::{
        PyBool, PyDate, PyDateTime, PyDelta, PyDict, PyFloat, PyInt, PyList, PyString, PyTime,
        PyTzInfo,
    },
};

/// Names of members that came before, as Python has them: most bodies have the same names again, and a string that is there costs
/// neither memory nor a hash.
pub(super) struct MemberNames(Mutex<[Option<Py<PyString>>; MEMBER_NAMES]>);

/// Places for names, a power of two; of two names with one place the newer one is kept.
const MEMBER_NAMES: usize = 256;
/// Longer names are rarely the same again.
const MEMBER_NAME_BYTES_MAX: usize = 32;

impl MemberNames {
    pub(super) fn new() -> Self {
        Self(Mutex::new([const { None }; MEMBER_NAMES]))
    }

    fn get<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyString>> {
        if name.len() > MEMBER_NAME_BYTES_MAX {
            return Ok(PyString::new(py, name));
        }
        // FNV-1a: who chooses names that share a place only makes them anew.
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // No Python code runs while it is locked: strings are made and freed without.
        let place = &mut names[hash as usize % MEMBER_NAMES];
        if let Some(found) = place.as_ref().map(|found| found.bind(py))
            && found.to_str()? == name
        {
            return Ok(found.clone());
        }
        let made = PyString::new(py, name);
        *place = Some(made.clone().unbind());
        Ok(made)
    }
}

/// What `json.loads` would give, but for what the reader refuses.
pub(super) fn of_value<'py>(
    py: Python<'py>,
    names: &MemberNames,
    value: &Value<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    // As deep as the reader lets values be.
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Value::Number(number) => of_number(py, number)?,
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(of_value(py, names, item)?)?;
            }
            list.into_any()
        }
        Value::Object(object) => {
            let dict = PyDict::new(py);
            for (name, value) in object.members() {
                dict.set_item(names.get(py, name)?, of_value(py, names, value)?)?;
            }
            dict.into_any()
        }
    })
}

/// `int` of what is written as an integer, `float` of the rest.
pub(super) fn of_number<'py>(py: Python<'py>, number: &Number<'_>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(float) = number.as_float() {
        return Ok(PyFloat::new(py, float).into_any());
    }
    if let Some(small) = number.as_i64() {
        return Ok(small.into_pyobject(py)?.into_any());
    }
    py.get_type::<PyInt>().call1((number.text(),))
}

/// What needs nothing but the standard types.
pub(super) fn of_parsed<'py>(py: Python<'py>, parsed: Parsed<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match parsed {
        Parsed::Str(text) => PyString::new(py, text).into_any(),
        Parsed::Bool(value) => PyBool::new(py, value).to_owned().into_any(),
        Parsed::Number(number) => of_number(py, &number)?,
        Parsed::Date(Date { year, month, day }) => {
            PyDate::new(py, year.into(), month, day)?.into_any()
        }
        Parsed::Time(time) => PyTime::new(
            py,
            time.hour,
            time.minute,
            time.second,
            time.microsecond,
            zone(py, time)?.as_ref(),
        )?
        .into_any(),
        Parsed::DateTime(day, time) => PyDateTime::new(
            py,
            day.year.into(),
            day.month,
            day.day,
            time.hour,
            time.minute,
            time.second,
            time.microsecond,
            zone(py, time)?.as_ref(),
        )?
        .into_any(),
        Parsed::Uuid(_) | Parsed::Choice(_) => unreachable!("made by the table"),
    })
}

fn zone(py: Python<'_>, time: Time) -> PyResult<Option<Bound<'_, PyTzInfo>>> {
    Ok(match time.offset_minutes {
        None => None,
        Some(0) => Some(PyTzInfo::utc(py)?.to_owned()),
        Some(minutes) => {
            let offset = PyDelta::new(py, 0, i32::from(minutes) * 60, 0, true)?;
            Some(PyTzInfo::fixed_offset(py, offset)?)
        }
    })
}
