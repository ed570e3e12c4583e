use super::Problem;

fn none() -> Problem {
    Problem::not_found("this daemon keeps its journal in memory: there are no files of one")
}

pub(super) async fn summary() -> Problem {
    none()
}

pub(super) async fn export() -> Problem {
    none()
}
