//! What a watch has to say, merged until somebody takes it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::Notice;

/// What has happened since the last look.
#[derive(Default)]
pub(super) struct Mailbox {
    news: Mutex<News>,
    came: Notify,
}

#[derive(Default)]
struct News {
    /// The last change between connected and unavailable.
    state: Option<Notice>,
    changed: bool,
    /// What was said last.
    unavailable: bool,
}

impl Mailbox {
    /// Adds a notice.
    pub(super) fn put(&self, notice: Notice) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        match notice {
            Notice::Changed => news.changed = true,
            Notice::Connected => {
                news.unavailable = false;
                news.state = Some(Notice::Connected);
            }
            Notice::Unavailable(_) if news.unavailable => return,
            Notice::Unavailable(_) => {
                news.unavailable = true;
                news.state = Some(notice);
            }
        }
        self.came.notify_one();
    }

    fn take(&self) -> Option<Notice> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = news.state.take() {
            // Whoever hears that it is connected reads the row anyhow.
            news.changed &= state != Notice::Connected;
            return Some(state);
        }
        std::mem::take(&mut news.changed).then_some(Notice::Changed)
    }

    /// The next notice. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> Notice {
        loop {
            if let Some(notice) = self.take() {
                return notice;
            }
            self.came.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::record::{Fault, Unknown};

    #[test]
    fn notices_are_merged() {
        let unavailable = Notice::Unavailable(Unknown {
            fault: Fault::Transient,
            message: String::new(),
        });
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.take(), None);
        mailbox.put(Notice::Changed);
        mailbox.put(Notice::Changed);
        assert_eq!(mailbox.take(), Some(Notice::Changed));
        assert_eq!(mailbox.take(), None);
        mailbox.put(Notice::Changed);
        mailbox.put(Notice::Connected);
        assert_eq!(mailbox.take(), Some(Notice::Connected));
        assert_eq!(mailbox.take(), None, "whoever is connected reads anyhow");
        mailbox.put(unavailable.clone());
        mailbox.put(unavailable.clone());
        assert_eq!(mailbox.take(), Some(unavailable.clone()));
        mailbox.put(unavailable.clone());
        assert_eq!(mailbox.take(), None, "it was said");
        mailbox.put(Notice::Connected);
        mailbox.put(unavailable.clone());
        assert_eq!(mailbox.take(), Some(unavailable), "the last state counts");
    }
}
