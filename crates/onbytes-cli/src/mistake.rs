//! Mistakes on the command line, each told in one line: what is wrong, and the way out.

use std::error::Error;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::failure::{Failure, shown};

/// The arguments as text.
pub(crate) fn all_utf8(args: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    for (number, arg) in args.into_iter().enumerate() {
        // The program's own name may be anything.
        match arg.into_string() {
            Ok(text) => texts.push(text),
            Err(_) if number == 0 => texts.push("onbytes".to_owned()),
            Err(arg) => {
                let arg = arg.to_string_lossy();
                let is_secret = takes_password(&arg)
                    || texts.last().is_some_and(|before| takes_password(before));
                let word = if is_secret { String::new() } else { format!(", '{}',", shown(&arg)) };
                let line = format!("argument {number}{word} is not UTF-8");
                return Err(Failure::usage(line).hint("give UTF-8 text"));
            }
        }
    }
    Ok(texts)
}

/// What the parser found wrong with `args`.
pub(crate) fn told(error: &clap::Error, args: &[String]) -> Failure {
    let help = match args.get(1).map(String::as_str) {
        _ if is_of_framing(error) => "see onbytes framing".to_owned(),
        Some(command @ ("serve" | "connect" | "bench" | "certs" | "framing")) => {
            format!("see onbytes {command} --help")
        }
        _ => "see onbytes --help".to_owned(),
    };
    let may_be_secret = args.iter().any(|arg| takes_password(arg));
    let wrong = match error.kind() {
        ErrorKind::UnknownArgument if may_be_secret && is_word(error) => {
            "there is an argument too many, perhaps of a password with spaces; put that in quotes"
                .to_owned()
        }
        _ => what_is_wrong(error),
    };
    Failure::usage(wrong).hint(&help)
}

/// Whether what follows a word of the command line, or follows a `=` in it, is a password.
fn takes_password(arg: &str) -> bool {
    let flag = arg.split_once('=').map_or(arg, |(flag, _)| flag);
    flag.starts_with("--") && flag.ends_with("password")
}

/// Whether it is a framing that cannot be; all that can are listed by a command.
fn is_of_framing(error: &clap::Error) -> bool {
    let is_value = error.kind() == ErrorKind::ValueValidation;
    let flag = words(error, ContextKind::InvalidArg).unwrap_or_default();
    is_value && matches!(bare(&flag), "--framing" | "FORM")
}

/// Whether what is wrong is a word rather than a flag.
fn is_word(error: &clap::Error) -> bool {
    words(error, ContextKind::InvalidArg).is_some_and(|word| !word.starts_with('-'))
}

fn what_is_wrong(error: &clap::Error) -> String {
    let told = |kind| words(error, kind);
    let flag = told(ContextKind::InvalidArg).map(|arg| bare(&arg).to_owned());
    let value = told(ContextKind::InvalidValue);
    match (error.kind(), flag, value) {
        (ErrorKind::ValueValidation, Some(flag), _) => match error.source() {
            Some(problem) => format!("{flag}: {problem}"),
            None => format!("{flag}: its value is not accepted"),
        },
        (ErrorKind::InvalidValue, Some(flag), Some(value)) => {
            let possible = told(ContextKind::ValidValue).unwrap_or_default();
            match (value.as_str(), possible.as_str()) {
                ("", "") => format!("{flag} has no value; give one"),
                ("", possible) => format!("{flag} has no value; give {possible}"),
                (value, possible) => format!("{flag}: '{value}' is not accepted; give {possible}"),
            }
        }
        (ErrorKind::UnknownArgument, Some(flag), _) => {
            let suggestion = told(ContextKind::SuggestedArg)
                .map(|arg| format!("; did you mean {}?", bare(&arg)));
            let what = if flag.starts_with('-') { "flag" } else { "argument" };
            format!("unknown {what} '{flag}'{}", suggestion.unwrap_or_default())
        }
        (ErrorKind::InvalidSubcommand, ..) => {
            let command = told(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("unknown command '{command}'; give serve, connect, bench, framing or certs")
        }
        (ErrorKind::MissingRequiredArgument, Some(flag), _) => format!("missing {flag}"),
        (ErrorKind::ArgumentConflict, Some(flag), _) => format!("{flag} is given twice"),
        _ => first_line(error),
    }
}

/// A part of what the parser tells of a mistake.
fn words(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(word) => Some(shown(word)),
        ContextValue::Strings(words) => {
            let words: Vec<_> = words.iter().map(|word| shown(bare(word))).collect();
            let (last, others) = words.split_last()?;
            Some(match (others, kind) {
                ([], _) => last.clone(),
                (_, ContextKind::ValidValue) => format!("{} or {last}", others.join(", ")),
                _ => format!("{} and {last}", others.join(", ")),
            })
        }
        _ => None,
    }
}

/// `--listen` of `--listen <ADDRESS>`, `HOST` of `<HOST>`, and `FORM` of `[FORM]`.
fn bare(arg: &str) -> &str {
    let name = arg.split_once(" <").map_or(arg, |(name, _)| name);
    let within = |start, end| name.strip_prefix(start).and_then(|name| name.strip_suffix(end));
    within('<', '>').or(within('[', ']')).unwrap_or(name)
}

/// A mistake of a kind that is not known here, in the parser's own words.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    shown(line.strip_prefix("error: ").unwrap_or(line))
}
