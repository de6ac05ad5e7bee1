//! The processes of the backend, for tests: what `stockade` does when it is started under one of their names.

fn main() -> std::process::ExitCode {
    stockade_embedded::role::run().unwrap_or(std::process::ExitCode::FAILURE)
}
