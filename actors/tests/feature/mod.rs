mod conformance;
mod flow;
