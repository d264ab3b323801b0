//! The `date` of responses that no crate gives one: rendered once a second at most.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, SystemTime},
};

use http::HeaderValue;

/// The time of day as a header value.
#[derive(Default)]
pub(crate) struct DateCache {
    second: Cell<u64>,
    rendered: RefCell<Option<HeaderValue>>,
}

impl DateCache {
    pub(crate) fn now(&self) -> HeaderValue {
        let second = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        self.at(second)
    }

    fn at(&self, second: u64) -> HeaderValue {
        let mut rendered = self.rendered.borrow_mut();
        if let Some(value) = &*rendered
            && self.second.get() == second
        {
            return value.clone();
        }
        let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        let value = HeaderValue::try_from(text).expect("a date is visible ASCII");
        self.second.set(second);
        *rendered = Some(value.clone());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::DateCache;

    #[test]
    fn date_is_that_of_the_second() {
        let date = DateCache::default();
        for (second, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
        ] {
            assert_eq!(date.at(second), text);
        }
    }
}
