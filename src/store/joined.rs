use std::thread::JoinHandle;

/// A thread that is waited for.
pub(super) struct Joined(Option<JoinHandle<()>>);

impl Joined {
    pub(super) fn new(thread: JoinHandle<()>) -> Self {
        Self(Some(thread))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // It catches the panics of its work; there is nobody left to tell of another.
            let _ = thread.join();
        }
    }
}
