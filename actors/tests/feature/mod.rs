mod bad_frames;
mod conformance;
mod flow;
mod isolation;
mod property;
mod retry;
mod supervision;
