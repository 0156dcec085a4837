#![allow(clippy::disallowed_methods, reason = "a test writes the files that a command reads")]

use super::*;

fn none() -> HeaderArgs {
    HeaderArgs { header: Vec::new(), header_file: None, bearer_file: None, basic_file: None }
}

#[test]
fn headers_come_from_the_command_line_and_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path.to_str().unwrap().to_owned())
    };
    let args = HeaderArgs {
        header: vec!["X-Tenant: eu:1".to_owned()],
        header_file: file("headers", "# of the ERP\n\nX-Api-Key:  7f3a \r\n"),
        basic_file: file("basic", "user:pass word:1\n"),
        ..none()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let basic = pair("Authorization", "Basic dXNlcjpwYXNzIHdvcmQ6MQ==");
    assert_eq!(args.headers().unwrap(), [pair("X-Tenant", "eu:1"), pair("X-Api-Key", "7f3a"), basic]);
    let args = HeaderArgs { bearer_file: file("bearer", " abc.def\n"), ..none() };
    assert_eq!(args.headers().unwrap(), [pair("Authorization", "Bearer abc.def")]);
    for (args, says) in [
        (HeaderArgs { header: vec!["hush".to_owned()], ..none() }, "--header number 1 is not written like"),
        (HeaderArgs { header_file: file("a", "X: 1\nhush\n"), ..none() }, "line 2: not written like"),
        (HeaderArgs { bearer_file: file("b", "hush hush"), ..none() }, "a token is one word"),
        (HeaderArgs { basic_file: file("c", "hush"), ..none() }, "not written like user:password"),
        (HeaderArgs { basic_file: Some("/nowhere/at/all".to_owned()), ..none() }, "cannot be read"),
    ] {
        let (Failure::Usage(error) | Failure::Failed(error)) = args.headers().unwrap_err() else { panic!() };
        assert!(error.contains(says) && !error.contains("hush"), "{error}");
    }
}

#[test]
fn a_secret_comes_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, secret) = (dir.path().join("secret"), WebhookSecret::random());
    std::fs::write(&path, format!("{}\n", secret.text())).unwrap();
    assert_eq!(secret_in(path.to_str().unwrap()).unwrap(), secret);
    std::fs::write(&path, "hush").unwrap();
    let Failure::Failed(error) = secret_in(path.to_str().unwrap()).unwrap_err() else { panic!() };
    assert!(error.contains("a webhook secret is written 'whsec_'") && !error.contains("hush"), "{error}");
}
