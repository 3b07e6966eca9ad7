//! Mistakes in a service are compile errors that point at the mistake.

/// The compiler that the expected messages were written with; others word them differently.
const COMPILER: &str = "rustc 1.95.";

fn is_the_compiler_of_the_messages() -> bool {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = std::process::Command::new(rustc).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with(COMPILER))
}

#[test]
fn mistakes_are_told_by_the_compiler() {
    if !is_the_compiler_of_the_messages() {
        eprintln!("SKIPPED: the expected messages are those of {COMPILER}x");
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.pass("tests/compile_fail/pass_complete_service.rs");
    for mistake in [
        "no_on_bytes",
        "no_on_connect",
        "wrong_parameter_type",
        "wrong_return_type",
        "connection_service_not_send",
        "future_not_send",
        "closure_returns_no_future",
    ] {
        cases.compile_fail(format!("tests/compile_fail/{mistake}.rs"));
    }
}
