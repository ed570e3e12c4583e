mod conformance;
mod flow;
mod property;
