//! [`Urgency`]: the class of a fetch while it runs. What began as warming becomes demand when somebody comes to wait for it;
//! it never falls again. Deliberately absent: who joins whom, which is the business of whoever has flights.

use std::sync::Arc;

use tokio::sync::watch;

use crate::class::Class;

/// How urgent a fetch is now. Clones share it.
#[derive(Debug, Clone)]
pub struct Urgency(Arc<watch::Sender<Class>>);

impl Default for Urgency {
    fn default() -> Self {
        Self::new(Class::default())
    }
}

impl Urgency {
    /// Of a fetch of this class.
    pub fn new(class: Class) -> Self {
        Self(Arc::new(watch::Sender::new(class)))
    }

    /// The class as it is now.
    pub fn class(&self) -> Class {
        *self.0.borrow()
    }

    /// Somebody of this class waits for it, too; does nothing if it is as urgent already.
    pub fn raise(&self, class: Class) {
        self.0.send_if_modified(|now| {
            let rises = class < *now;
            *now = class.min(*now);
            rises
        });
    }

    /// Waits until it is more urgent than `class`, and says how urgent.
    pub async fn above(&self, class: Class) -> Class {
        let mut changes = self.0.subscribe();
        loop {
            let now = *changes.borrow_and_update();
            if now < class {
                return now;
            }
            if changes.changed().await.is_err() {
                // Cannot be while this is borrowed: it owns the sender.
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn it_rises_for_all_who_share_it_and_never_falls() {
        let urgency = Urgency::new(Class::Background);
        let mut above = Box::pin(urgency.above(Class::Warm));
        assert!(above.as_mut().now_or_never().is_none());
        urgency.clone().raise(Class::Warm);
        assert!(above.as_mut().now_or_never().is_none());
        assert_eq!(urgency.above(Class::Background).now_or_never(), Some(Class::Warm));
        urgency.clone().raise(Class::Demand);
        assert_eq!(above.await, Class::Demand);
        urgency.raise(Class::Background);
        assert_eq!(urgency.class(), Class::Demand);
    }
}
