//! `receive` and `send` as the application gets them.
//!
//! Both return an awaitable, so they are coroutine functions to whoever asks: `inspect.iscoroutinefunction`, before Python 3.12
//! `asyncio.iscoroutinefunction`. asgiref's `async_to_sync` asks, and warns of what is none. Only an attribute can say so, and a
//! built-in function has no place for one. So these are instances of a type whose attribute says it for all of them.
//!
//! They are called as built-in functions are, by the vector call protocol (PEP 590): nothing is packed into a tuple, and
//! arguments that come as everybody passes them are not parsed.
#![expect(unsafe_code, reason = "a type with a slot for vector calls")]

use std::{cell::Cell, ffi::c_void, mem::offset_of, ptr::null_mut};

use pyo3::{
    Borrowed, PyClass,
    exceptions::PyRuntimeError,
    ffi,
    prelude::*,
    sync::PyOnceLock,
    types::{PyString, PyType},
};

use super::object::{self, Contents, Object, alone, contents, slot};

/// An exchange whose methods `receive` and `send` the application calls. They are methods of the class, too, which are called
/// when the arguments come in any other way.
pub(crate) trait Callee: PyClass {
    /// `receive()`.
    fn receive<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>>;

    /// `send(message)`.
    fn send<'py>(
        this: &Bound<'py, Self>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>>;
}

/// Makes a class that has these two methods a [`Callee`].
macro_rules! callee {
    ($class:ty) => {
        impl $crate::asgi::function::Callee for $class {
            fn receive<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
                Self::receive(this)
            }

            fn send<'py>(
                this: &Bound<'py, Self>,
                message: &Bound<'py, PyAny>,
            ) -> PyResult<Bound<'py, PyAny>> {
                Self::send(this, message)
            }
        }
    };
}
pub(crate) use callee;

/// `receive` of an exchange.
pub(crate) fn receive<'py, T: Callee>(exchange: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    function(exchange, "receive", call_receive::<T>)
}

/// `send` of an exchange.
pub(crate) fn send<'py, T: Callee>(exchange: &Bound<'py, T>) -> PyResult<Bound<'py, PyAny>> {
    function(exchange, "send", call_send::<T>)
}

#[repr(C)]
struct Function {
    /// Found by the interpreter through `__vectorcalloffset__`.
    call: ffi::vectorcallfunc,
    name: &'static str,
    exchange: Cell<Option<Py<PyAny>>>,
}

impl Contents for Function {
    fn visit(&self, visit: &mut dyn FnMut(*mut ffi::PyObject)) {
        if let Some(exchange) = object::peek(&self.exchange) {
            visit(exchange);
        }
    }

    fn clear(&self, py: Python<'_>) {
        object::release(py, self.exchange.take());
    }

    fn release(self, py: Python<'_>) {
        self.clear(py);
    }
}

fn function<'py, T: Callee>(
    exchange: &Bound<'py, T>,
    name: &'static str,
    call: ffi::vectorcallfunc,
) -> PyResult<Bound<'py, PyAny>> {
    let contents = Function {
        call,
        name,
        exchange: Cell::new(Some(exchange.clone().into_any().unbind())),
    };
    object::allocate(function_type(exchange.py())?, contents)
}

/// The exchange that a function was made for.
///
/// # Safety
/// `this` is a live instance of the type of [`function_type`].
unsafe fn exchange(py: Python<'_>, this: *mut ffi::PyObject) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: by the caller's promise; alone in there, nobody clears it between the look and the new reference.
    unsafe {
        alone(&Borrowed::from_ptr(py, this), || {
            object::peek(&contents::<Function>(this).exchange)
                .map(|exchange| Bound::from_borrowed_ptr(py, exchange))
        })
        .ok_or_else(|| PyRuntimeError::new_err("this function was collected"))
    }
}

unsafe extern "C" fn call_receive<T: Callee>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let receive = |exchange: &Bound<'_, T>, _: &[*mut ffi::PyObject]| {
        T::receive(exchange).map(Bound::into_ptr)
    };
    // SAFETY: what the interpreter passes; `this` was made by `receive` for a `T`.
    unsafe { call(this, arguments, count, names, 0, receive) }
}

unsafe extern "C" fn call_send<T: Callee>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let send = |exchange: &Bound<'_, T>, given: &[*mut ffi::PyObject]| {
        // SAFETY: a live object for as long as the call, and `call` passes exactly one.
        let message = unsafe { Borrowed::from_ptr(exchange.py(), given[0]) };
        T::send(exchange, &message).map(Bound::into_ptr)
    };
    // SAFETY: what the interpreter passes; `this` was made by `send` for a `T`.
    unsafe { call(this, arguments, count, names, 1, send) }
}

/// A vector call of a function of `wanted` arguments.
///
/// # Safety
/// The arguments are those of a vector call of a function that was made for a `T`.
#[inline]
unsafe fn call<T: Callee>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
    wanted: usize,
    body: impl FnOnce(&Bound<'_, T>, &[*mut ffi::PyObject]) -> PyResult<*mut ffi::PyObject>,
) -> *mut ffi::PyObject {
    slot(null_mut(), |py| {
        // SAFETY: by the caller's promise. There may be no array where there are no arguments.
        unsafe {
            let exchange = exchange(py, this)?;
            if ffi::PyVectorcall_NARGS(count).unsigned_abs() == wanted && names.is_null() {
                let given = if wanted == 0 {
                    &[]
                } else {
                    std::slice::from_raw_parts(arguments, wanted)
                };
                return body(exchange.cast_unchecked::<T>(), given);
            }
            let name = PyString::intern(py, contents::<Function>(this).name);
            call_method(&exchange, &name, arguments, count, names)
        }
    })
}

/// Calls by name, or wrongly: the method knows what to say.
///
/// # Safety
/// The arguments are those of a vector call.
#[cold]
unsafe fn call_method(
    exchange: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    let py = exchange.py();
    let method = exchange.getattr(name)?;
    // SAFETY: by the caller's promise. The flag that the place in front of the arguments is free is passed on as it came.
    unsafe {
        let result = ffi::PyObject_Vectorcall(method.as_ptr(), arguments, count, names);
        Bound::from_owned_ptr_or_err(py, result).map(Bound::into_ptr)
    }
}

unsafe extern "C" fn repr(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    slot(null_mut(), |py| {
        // SAFETY: the receiver is a function.
        let (name, exchange) = unsafe { (contents::<Function>(this).name, exchange(py, this)?) };
        let text = format!("<{name} of {}>", exchange.repr()?);
        Ok(PyString::new(py, &text).into_any().into_ptr())
    })
}

unsafe extern "C" fn get_name(this: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    slot(null_mut(), |py| {
        // SAFETY: the receiver is a function.
        let name = unsafe { contents::<Function>(this) }.name;
        Ok(PyString::intern(py, name).into_any().into_ptr())
    })
}

unsafe extern "C" fn get_exchange(this: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: the receiver is a function.
    slot(null_mut(), |py| unsafe {
        exchange(py, this).map(Bound::into_ptr)
    })
}

/// As the method of the class has it.
unsafe extern "C" fn get_signature(this: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    slot(null_mut(), |py| {
        // SAFETY: the receiver is a function.
        let (name, exchange) = unsafe { (contents::<Function>(this).name, exchange(py, this)?) };
        py.import("inspect")?
            .call_method1("signature", (exchange.getattr(name)?,))
            .map(Bound::into_ptr)
    })
}

fn function_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static TYPE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = TYPE.get_or_try_init(py, || {
        let call_offset = Object::<Function>::CONTENTS_OFFSET + offset_of!(Function, call);
        let slots = [
            (ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            (ffi::Py_tp_repr, repr as *mut c_void),
            object::vectorcall_at(call_offset),
            object::attributes(vec![
                object::attribute(c"__name__", get_name, None),
                object::attribute(c"__qualname__", get_name, None),
                object::attribute(c"__self__", get_exchange, None),
                object::attribute(c"__signature__", get_signature, None),
            ]),
        ];
        let class = object::new_type(
            py,
            c"framegate._http.Function",
            size_of::<Object<Function>>(),
            ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_HAVE_VECTORCALL,
            object::lifetime_slots::<Function>()
                .into_iter()
                .chain(slots),
            None,
        )?;
        mark_as_coroutine_functions(&class)?;
        Ok::<_, PyErr>(class.unbind())
    })?;
    Ok(class.bind(py))
}

/// Gives a type the attributes by which its instances are known as coroutine functions.
fn mark_as_coroutine_functions(class: &Bound<'_, PyType>) -> PyResult<()> {
    let py = class.py();
    // Python 3.12.
    if let Some(mark) = py.import("inspect")?.getattr_opt("markcoroutinefunction")? {
        mark.call1((class,))?;
    }
    // What asyncio asked for until then, and asks still.
    if let Some(mark) = py
        .import("asyncio.coroutines")?
        .getattr_opt("_is_coroutine")?
    {
        class.setattr("_is_coroutine", mark)?;
    }
    Ok(())
}
