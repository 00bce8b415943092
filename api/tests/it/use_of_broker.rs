//! Tests share one broker, and a test that kills it waits until no other test uses it.
//!
//! A use lasts until the thread of its test ends.

use std::{
    cell::RefCell,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

static BROKER: RwLock<()> = RwLock::new(());

enum Use {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

thread_local! {
    static USE: RefCell<Option<Use>> = const { RefCell::new(None) };
}

/// From here on nobody else kills the broker.
pub fn share() {
    USE.with_borrow_mut(|current| {
        current.get_or_insert_with(|| Use::Shared {
            _guard: BROKER.read().unwrap_or_else(PoisonError::into_inner),
        });
    });
}

/// From here on nobody else uses the broker.
pub fn take_alone() {
    USE.with_borrow_mut(|current| {
        if !matches!(current, Some(Use::Alone { .. })) {
            // Else it would wait for its own shared use.
            *current = None;
            let guard = BROKER.write().unwrap_or_else(PoisonError::into_inner);
            *current = Some(Use::Alone { _guard: guard });
        }
    });
}
