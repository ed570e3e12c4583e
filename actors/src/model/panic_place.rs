//! Where a panic began: its payload does not say, and only the panic hook is told.

use std::any::Any;
use std::cell::RefCell;
use std::panic;
use std::sync::Once;

struct Panicked {
    text: Option<String>,
    place: String,
}

thread_local!(static LAST: RefCell<Option<Panicked>> = const { RefCell::new(None) });

/// Has every later panic of the process leave its place, and go on to the hook that was there before.
pub(crate) fn remember() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(location) = info.location() {
                let panicked = Panicked { text: text(info.payload()).map(str::to_owned), place: location.to_string() };
                // A thread that is ending has no place for it any more.
                let _ = LAST.try_with(|last| last.replace(Some(panicked)));
            }
            before(info);
        }));
    });
}

/// What a panic says.
pub(super) fn text(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}

/// Where the last panic of this thread began, if it is the one that said `text`.
pub(super) fn take(text: Option<&str>) -> Option<String> {
    let last = LAST.try_with(RefCell::take).ok().flatten()?;
    (last.text.as_deref() == text).then_some(last.place)
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, resume_unwind};

    use crate::model::{Cause, Code};

    fn cause(panics: impl FnOnce()) -> String {
        super::remember();
        let panic = catch_unwind(std::panic::AssertUnwindSafe(panics)).unwrap_err();
        Cause::from_panic(Code::ActorPanic, &*panic).detail.to_string()
    }

    #[test]
    fn the_cause_of_a_panic_says_where_it_began() {
        let line = line!() + 1;
        let told = cause(|| panic!("the {} broke", "pump"));
        assert!(told.starts_with("the pump broke at ") && told.contains(&format!("panic_place.rs:{line}:")), "{told}");
        let told = cause(|| std::panic::panic_any(7));
        assert!(told.starts_with("panicked with a value that is no text at "), "{told}");
    }

    #[test]
    fn a_panic_that_no_hook_saw_is_not_given_the_place_of_another() {
        super::remember();
        drop(catch_unwind(|| panic!("an older one, that nobody asked about")));
        assert_eq!(cause(|| resume_unwind(Box::new("carried here from elsewhere"))), "carried here from elsewhere");
    }
}
