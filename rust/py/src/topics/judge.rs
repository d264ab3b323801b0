//! The setting `topics_access`: the application says who may do what, and for that a question goes to Python.
//!
//! Topics are served on any thread, a question is answered on the loop's: it crosses by a channel to a task there, which makes a
//! task of Python for each. What the application returns or raises is looked at in `framegate/topic_judge.py`. While the loop stands
//! still nobody answers, so each question has a time (`topics_access_timeout`).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use framegate_http::{
    edge::Client,
    service::Address,
    topics::access::{Judge, JudgeFuture, Question, Unjudged},
};
use http::Version;
use pyo3::{
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList},
};
use std::rc::Rc;
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

use crate::event_loop::LoopCore;

/// Questions that wait for their turn on the loop: as many requests may be at their beginning. More wait outside.
const QUESTIONS_MAX: usize = 1024;

/// A question on its way to the loop.
struct Asked {
    question: Question,
    reply: oneshot::Sender<Option<bool>>,
    /// Resolves when nobody waits for the answer any more.
    gone: oneshot::Receiver<()>,
}

/// Asks the application.
pub(super) struct AppJudge {
    questions: mpsc::Sender<Asked>,
    patience: Duration,
}

/// Ends the answering when dropped.
pub(super) struct Answering(AbortHandle);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl AppJudge {
    /// `decide` is called on the loop that runs now, and has so long to answer.
    pub(super) fn new(
        py: Python<'_>,
        decide: Py<PyAny>,
        patience: Duration,
        core: &Rc<LoopCore>,
    ) -> PyResult<(Self, Answering)> {
        let event_loop = py
            .import("asyncio")?
            .call_method0("get_running_loop")?
            .unbind();
        let (questions, mut asked) = mpsc::channel::<Asked>(QUESTIONS_MAX);
        let here = core.clone();
        let task = core.spawn(async move {
            while let Some(asked) = asked.recv().await {
                if asked.reply.is_closed() {
                    continue;
                }
                Python::attach(|py| {
                    if let Err(error) = ask(py, &here, &event_loop, &decide, asked) {
                        here.report(py, "topics_access could not be asked", error);
                    }
                    here.after_python(py);
                });
            }
        });
        let judge = Self {
            questions,
            patience,
        };
        Ok((judge, Answering(task.abort_handle())))
    }
}

impl Judge for AppJudge {
    fn judge(&self, question: Question) -> JudgeFuture {
        let (questions, patience) = (self.questions.clone(), self.patience);
        Box::pin(async move {
            let asked = async {
                let (reply, answer) = oneshot::channel();
                let (_waits, gone) = oneshot::channel();
                let asked = Asked {
                    question,
                    reply,
                    gone,
                };
                questions.send(asked).await.ok()?;
                answer.await.ok().flatten()
            };
            // A question whose asker has gone is passed over, and one that is being answered is cancelled.
            let answered = timeout(patience, asked).await;
            answered
                .map_err(|_| Unjudged::Late)?
                .ok_or(Unjudged::Failed)
        })
    }
}

/// Starts a task that answers. A reply that is dropped is an answer as well: it could not be found out.
fn ask(
    py: Python<'_>,
    core: &Rc<LoopCore>,
    event_loop: &Py<PyAny>,
    decide: &Py<PyAny>,
    asked: Asked,
) -> PyResult<()> {
    let Asked {
        question,
        reply,
        gone,
    } = asked;
    let coroutine = decide.bind(py).call1((scope(py, &question)?,))?;
    let task = event_loop
        .bind(py)
        .call_method1(intern!(py, "create_task"), (coroutine,))?;
    let (answering, here) = (task.clone().unbind(), core.clone());
    let watch = core.spawn(async move {
        let _gone = gone.await;
        Python::attach(|py| {
            if let Err(error) = answering.call_method0(py, intern!(py, "cancel")) {
                here.report(py, "topics_access could not be cancelled", error);
            }
            here.after_python(py);
        });
    });
    let told = Told {
        reply: Mutex::new(Some(reply)),
        watch: watch.abort_handle(),
    };
    task.call_method1(intern!(py, "add_done_callback"), (Bound::new(py, told)?,))?;
    Ok(())
}

/// Passes on what a task has found out.
#[pyclass(frozen, module = "framegate._http")]
struct Told {
    reply: Mutex<Option<oneshot::Sender<Option<bool>>>>,
    /// Waits for the asker to go.
    watch: AbortHandle,
}

#[pymethods]
impl Told {
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        self.watch.abort();
        let reply = self
            .reply
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if task.call_method0("cancelled")?.is_truthy()? {
            return Ok(());
        }
        let answer: Option<bool> = task.call_method0("result")?.extract()?;
        if let Some(reply) = reply {
            // Nobody waits any more: the client has gone.
            let _ = reply.send(answer);
        }
        Ok(())
    }
}

/// What the application is given: keys of an ASGI scope, and what is asked.
fn scope<'py>(py: Python<'py>, question: &Question) -> PyResult<Bound<'py, PyDict>> {
    let scope = PyDict::new(py);
    scope.set_item("type", "framegate.topic")?;
    scope.set_item("action", question.permission.name())?;
    scope.set_item("topic", question.topic.as_deref())?;
    scope.set_item("local", question.is_local)?;
    scope.set_item("method", question.method.as_str())?;
    scope.set_item("path", question.target.path())?;
    let query = question.target.query().unwrap_or_default();
    scope.set_item("query_string", PyBytes::new(py, query.as_bytes()))?;
    let version = match question.version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    scope.set_item("http_version", version)?;
    let scheme = if question.is_secure { "https" } else { "http" };
    scope.set_item("scheme", scheme)?;
    let headers = PyList::empty(py);
    for (name, value) in &question.headers {
        let name = PyBytes::new(py, name.as_str().as_bytes());
        headers.append((name, PyBytes::new(py, value.as_bytes())))?;
    }
    scope.set_item("headers", headers)?;
    let client = match question.client {
        Client::Peer => address(py, &question.peer)?,
        Client::At(at) => (at.ip().to_string(), at.port())
            .into_pyobject(py)?
            .into_any(),
        Client::Unknown => py.None().into_bound(py),
    };
    scope.set_item("client", client)?;
    scope.set_item("server", address(py, &question.local)?)?;
    Ok(scope)
}

fn address<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    match address {
        Address::Inet(at) => Ok((at.ip().to_string(), at.port())
            .into_pyobject(py)?
            .into_any()),
        Address::Unix(_) => Ok(py.None().into_bound(py)),
    }
}
