//! What a watch has to say, merged until somebody takes it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::Notice;
use crate::lease::record::Freed;

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
    changed: Option<Option<Freed>>,
    /// What was said last.
    unavailable: bool,
}

impl Mailbox {
    /// Adds a notice.
    pub(super) fn put(&self, notice: Notice) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        match notice {
            // One that was said of two changes would be half the truth.
            Notice::Changed(freed) => {
                news.changed = Some(freed.filter(|_| news.changed.is_none()));
            }
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
            if state == Notice::Connected {
                news.changed = None;
            }
            return Some(state);
        }
        news.changed.take().map(Notice::Changed)
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
    use crate::lease::ids::{Revision, Slot, Token};
    use crate::lease::record::{Fault, Unknown};

    #[test]
    fn notices_are_merged() {
        let unavailable = Notice::Unavailable(Unknown {
            fault: Fault::Transient,
            message: String::new(),
        });
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.take(), None);
        mailbox.put(Notice::Changed(None));
        mailbox.put(Notice::Changed(None));
        assert_eq!(mailbox.take(), Some(Notice::Changed(None)));
        assert_eq!(mailbox.take(), None);
        let freed = Some(Freed {
            slot: Slot(0),
            token: Token(5),
            revision: Revision(3),
        });
        mailbox.put(Notice::Changed(freed));
        assert_eq!(mailbox.take(), Some(Notice::Changed(freed)));
        mailbox.put(Notice::Changed(freed));
        mailbox.put(Notice::Changed(freed));
        assert_eq!(
            mailbox.take(),
            Some(Notice::Changed(None)),
            "of two changes"
        );
        mailbox.put(Notice::Changed(None));
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
