//! Mistakes in a service are compile errors that point at the mistake.

#[test]
fn mistakes_are_told_by_the_compiler() {
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
