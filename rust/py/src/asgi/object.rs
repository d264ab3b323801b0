//! Python types written against the C API itself, because they need slots that `#[pyclass]` does not offer (`am_send`) or a
//! base type that it cannot extend (`asyncio.Task`).
//!
//! [`Object<T>`] is the memory of such an instance: the interpreter's header and a Rust value. The value lives from
//! [`allocate`] to the type's `tp_dealloc`. All access is by shared reference, so `T` keeps its state in `Cell`s; a borrow is
//! never held across a call into Python, which may come back to the same object.
//!
//! **Without the GIL** the cells are guarded by the critical section of the object (PEP 703): each slot function runs in its
//! receiver's ([`slot_of`]), and Rust code that reaches into an object enters it by [`alone`]. A section is given up at most
//! where the GIL could be: while its thread waits, and around calls into Python. So one rule serves both, the one about borrows.
//!
//! What must change together: [`Contents::visit`], [`Contents::clear`] and the fields of the type.
#![expect(unsafe_code, reason = "the whole file is the C API")]

use std::{
    ffi::{CStr, c_int, c_void},
    mem::offset_of,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use pyo3::{
    Borrowed, ffi, panic::PanicException, prelude::*,
    sync::critical_section::with_critical_section, types::PyType,
};

use crate::error::panic_text;

/// Slot number of `am_send`, which pyo3 does not name.
pub(crate) const PY_AM_SEND: c_int = 81;

/// What is behind the header of an [`Object`].
pub(crate) trait Contents: Sized {
    /// Calls `visit` for every Python object that is held (for the cycle collector; must not touch reference counts).
    fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject));

    /// Lets go of everything that can take part in a cycle.
    fn clear(&self, py: Python<'_>);

    /// The object is going away. Implementations drop what they hold through `into_bound(py)`, so that reference counts fall
    /// at once whatever called the destructor.
    fn release(self, py: Python<'_>);
}

/// An instance: the interpreter's header, then the value.
#[repr(C)]
pub(crate) struct Object<T> {
    header: ffi::PyObject,
    contents: T,
}

impl<T> Object<T> {
    /// Where the value begins.
    pub(crate) const CONTENTS_OFFSET: usize = offset_of!(Self, contents);
}

/// The value behind `object`.
///
/// # Safety
/// `object` is alive for `'a` and an instance of the type that [`new_type`] made for `Object<T>`.
#[inline]
pub(crate) unsafe fn contents<'a, T>(object: *mut ffi::PyObject) -> &'a T {
    // SAFETY: by the caller's promise this is an `Object<T>`, and so it was written by `allocate`: its type refuses to be
    // instantiated. Nobody makes a `&mut` to its contents before `dealloc`.
    unsafe { &(*object.cast::<Object<T>>()).contents }
}

/// A new instance of `class`, which [`new_type`] made for `Object<T>`.
pub(crate) fn allocate<'py, T: Contents>(
    class: &Bound<'py, PyType>,
    value: T,
) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    // SAFETY: `class` is a ready heap type. The memory comes zeroed and is written before anything can look at it: between
    // the allocation and the write nothing is allocated, so the cycle collector cannot run; without the interpreter lock another
    // thread's collector stops this one only at a safepoint, of which there is none between the two.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class.as_type_ptr(), 0);
        if object.is_null() {
            value.release(py);
            return Err(PyErr::fetch(py));
        }
        ptr::write(&raw mut (*object.cast::<Object<T>>()).contents, value);
        Ok(Bound::from_owned_ptr(py, object))
    }
}

/// A slot table entry.
pub(crate) type Slot = (c_int, *mut c_void);

/// The slots that every [`Object<T>`] type has: destruction and cycle collection.
pub(crate) fn lifetime_slots<T: Contents>() -> [Slot; 3] {
    [
        (ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void),
        (ffi::Py_tp_traverse, traverse::<T> as *mut c_void),
        (ffi::Py_tp_clear, clear::<T> as *mut c_void),
    ]
}

/// Makes a heap type of `basic_size` bytes per instance, of which Python can make none: it would make one whose contents nobody
/// has written. Leaks a few dozen bytes of tables: types live as long as the process.
pub(crate) fn new_type<'py>(
    py: Python<'py>,
    name: &'static CStr,
    basic_size: usize,
    flags: std::ffi::c_ulong,
    slots: impl IntoIterator<Item = Slot>,
    base: Option<&Bound<'py, PyType>>,
) -> PyResult<Bound<'py, PyType>> {
    let mut table: Vec<ffi::PyType_Slot> = slots
        .into_iter()
        .map(|(slot, pfunc)| ffi::PyType_Slot { slot, pfunc })
        .collect();
    table.push(ffi::PyType_Slot {
        slot: 0,
        pfunc: ptr::null_mut(),
    });
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: c_int::try_from(basic_size).expect("instances are small"),
        itemsize: 0,
        flags: u32::try_from(flags | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION)
            .expect("type flags have 32 bits"),
        slots: table.leak().as_mut_ptr(),
    };
    // SAFETY: the spec is complete and its tables outlive the type; the slots are functions of the types that the C API
    // documents for them (their authors' duty, one file up).
    unsafe {
        let class = match base {
            Some(base) => ffi::PyType_FromSpecWithBases(&raw mut spec, base.as_ptr()),
            None => ffi::PyType_FromSpec(&raw mut spec),
        };
        Ok(Bound::from_owned_ptr_or_err(py, class)?.cast_into_unchecked())
    }
}

/// A method that takes exactly one argument, or none with `METH_NOARGS`.
pub(crate) const fn method(
    name: &'static CStr,
    function: ffi::PyCFunction,
    flags: c_int,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: function,
        },
        ml_flags: flags,
        ml_doc: ptr::null(),
    }
}

/// A method that takes any number of arguments.
pub(crate) const fn method_keywords(
    name: &'static CStr,
    function: ffi::PyCFunctionFastWithKeywords,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: function,
        },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: ptr::null(),
    }
}

/// A computed attribute.
pub(crate) const fn attribute(
    name: &'static CStr,
    get: ffi::getter,
    set: Option<ffi::setter>,
) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set,
        doc: ptr::null(),
        closure: ptr::null_mut(),
    }
}

/// The slot for a method table.
pub(crate) fn methods(mut table: Vec<ffi::PyMethodDef>) -> Slot {
    table.push(ffi::PyMethodDef::zeroed());
    (ffi::Py_tp_methods, table.leak().as_mut_ptr().cast())
}

/// The slot for a table of computed attributes.
pub(crate) fn attributes(mut table: Vec<ffi::PyGetSetDef>) -> Slot {
    table.push(ffi::PyGetSetDef::default());
    (ffi::Py_tp_getset, table.leak().as_mut_ptr().cast())
}

/// The slot that tells where in an instance its function for vector calls is (PEP 590); the type has the flag for it, too.
pub(crate) fn vectorcall_at(offset: usize) -> Slot {
    let member = ffi::PyMemberDef {
        name: c"__vectorcalloffset__".as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: ffi::Py_ssize_t::try_from(offset).expect("instances are small"),
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    };
    let table = vec![member, ffi::PyMemberDef::default()];
    (ffi::Py_tp_members, table.leak().as_mut_ptr().cast())
}

/// Runs the body of a slot function: an error becomes the interpreter's pending exception, a panic a `PanicException`; both
/// give `failed`.
#[inline]
pub(crate) fn slot<R>(failed: R, body: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    // SAFETY: slot functions are called by the interpreter, on an attached thread.
    let py = unsafe { Python::assume_attached() };
    let error = match catch_unwind(AssertUnwindSafe(|| body(py))) {
        Ok(Ok(value)) => return value,
        Ok(Err(error)) => error,
        Err(panic) => PanicException::new_err(panic_text(&*panic).to_owned()),
    };
    error.restore(py);
    failed
}

/// [`slot`] of a function whose receiver is an [`Object`]: nobody else is in there meanwhile.
#[inline]
pub(crate) fn slot_of<R>(
    receiver: *mut ffi::PyObject,
    failed: R,
    body: impl FnOnce(Python<'_>) -> PyResult<R>,
) -> R {
    slot(failed, |py| {
        // SAFETY: slot functions are called by the interpreter, with a receiver that lives as long as the call.
        let receiver = unsafe { Borrowed::from_ptr(py, receiver) };
        alone(&receiver, || body(py))
    })
}

/// Runs `body` with nobody else in `object`, as far as it does not call into Python. Costs nothing with the GIL.
#[inline]
pub(crate) fn alone<R>(object: &Bound<'_, PyAny>, body: impl FnOnce() -> R) -> R {
    with_critical_section(object, body)
}

/// The object that a `throw(type[, value[, traceback]])` call asks to raise.
///
/// # Safety
/// `arguments` points to `count` live objects.
pub(crate) unsafe fn thrown(
    py: Python<'_>,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> PyResult<PyErr> {
    if count < 1 {
        return Err(pyo3::exceptions::PyTypeError::new_err(
            "throw() needs an exception",
        ));
    }
    // SAFETY: the caller vouches for the array; borrowed references stay alive for the call.
    let argument =
        |index: ffi::Py_ssize_t| unsafe { Bound::from_borrowed_ptr(py, *arguments.offset(index)) };
    let value = if count >= 2 { Some(argument(1)) } else { None };
    Ok(PyErr::from_value(match value {
        Some(value) if !value.is_none() => value,
        _ => argument(0),
    }))
}

unsafe extern "C" fn dealloc<T: Contents>(object: *mut ffi::PyObject) {
    // SAFETY: called once, by the interpreter, when the last reference is gone. The value was written by `allocate` and is
    // moved out before the memory goes; heap types own a reference to their type.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let class = ffi::Py_TYPE(object);
        let value = ptr::read(&raw const (*object.cast::<Object<T>>()).contents);
        // An exception may be on its way while objects die; releasing must not disturb it.
        slot((), |py| {
            let pending = PyErr::take(py);
            value.release(py);
            if let Some(pending) = pending {
                pending.restore(py);
            }
            Ok(())
        });
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse<T: Contents>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: called by the cycle collector on a live, tracked instance; the collector stops everybody else from changing it.
    unsafe {
        let mut result = visit(ffi::Py_TYPE(object).cast(), argument);
        contents::<T>(object).visit(&mut |held| {
            if result == 0 {
                result = visit(held, argument);
            }
        });
        result
    }
}

unsafe extern "C" fn clear<T: Contents>(object: *mut ffi::PyObject) -> c_int {
    slot_of(object, -1, |py| {
        // SAFETY: a live instance, as above.
        unsafe { contents::<T>(object) }.clear(py);
        Ok(0)
    })
}

/// Reads a `Cell<Option<Py<T>>>` without disturbing its reference count, for [`Contents::visit`].
pub(crate) fn peek<T>(cell: &std::cell::Cell<Option<Py<T>>>) -> Option<*mut ffi::PyObject> {
    // SAFETY: the collector has stopped everybody who could replace the value, and a shared look at it does not escape.
    unsafe { (*cell.as_ptr()).as_ref().map(Py::as_ptr) }
}

/// Drops an owned reference at once (a plain `drop` of a `Py` may be put off when pyo3 does not know that it is attached).
pub(crate) fn release<T>(py: Python<'_>, reference: Option<Py<T>>) {
    drop(reference.map(|reference| reference.into_bound(py)));
}
