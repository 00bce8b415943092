//! Records the panics of the program. The program catches some of them itself, but none may go
//! unnoticed.

use std::{
    cell::{Cell, RefCell},
    panic::{set_hook, take_hook},
    sync::Once,
};

thread_local! {
    static NOTES: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `deed` and records panics of this thread instead of printing them. Returns the result and
/// the last panic.
pub fn noted<T>(deed: impl FnOnce() -> T) -> (T, Option<String>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if NOTES.get() {
                LAST.set(Some(panic.to_string()));
            } else {
                others(panic);
            }
        }));
    });
    NOTES.set(true);
    let done = deed();
    NOTES.set(false);
    (done, LAST.take())
}
