//! Children that behave and children that do not: each case is a small shell script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::{ffi::OsString, time::Duration};

use bytes::Bytes;
use castra_core::ServerName;
use castra_host::{
    Secret,
    child::{self, ChildError, ChildLimits, ChildSpec, Exit, Lines},
};

const LIMITS: ChildLimits =
    ChildLimits { line_bytes_max: 1000, stdin_queue_max: 4, stop_time_max: Duration::from_millis(300) };

fn shell(script: &str) -> ChildSpec {
    ChildSpec {
        name: ServerName::new("test").unwrap(),
        command: "/bin/sh".into(),
        args: [OsString::from("-c"), script.into()].to_vec(),
        env: vec![("TOKEN".into(), Secret::new("s3cret"))],
        cwd: None,
    }
}

async fn line(lines: &mut Lines) -> String {
    let line = lines.next().await.unwrap().expect("a line");
    String::from_utf8(line.to_vec()).unwrap()
}

fn is_there(pid: &str) -> bool {
    // A zombie still has its folder, so this also sees what was not reaped.
    std::path::Path::new("/proc").join(pid).exists()
}

async fn gone(pid: &str) {
    for _ in 0..500 {
        if !is_there(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} is still there");
}

#[tokio::test]
async fn lines_go_both_ways_in_order() {
    let (child, mut lines) = child::start(&shell("exec cat"), LIMITS).unwrap();
    for text in ["one", "", "three"] {
        child.send(Bytes::from_static(text.as_bytes())).await.unwrap();
    }
    assert_eq!(
        [line(&mut lines).await, line(&mut lines).await, line(&mut lines).await],
        ["one", "", "three"]
    );
    assert!(matches!(child.send(Bytes::from_static(b"a\nb")).await, Err(ChildError::BrokenLine)));
    assert_eq!(child.stop().await, Exit::Code(0));
    assert_eq!(lines.next().await.unwrap(), None);
    assert!(!is_there(&child.pid().to_string()));
}

#[tokio::test]
async fn only_the_base_and_what_is_configured_is_in_the_environment() {
    let (_child, mut lines) = child::start(&shell("env; echo end"), LIMITS).unwrap();
    let mut names = Vec::new();
    loop {
        let text = line(&mut lines).await;
        if text == "end" {
            break;
        }
        names.push(text.split_once('=').map(|(name, _)| name.to_owned()).unwrap_or_default());
    }
    assert!(names.contains(&"TOKEN".to_owned()) && names.contains(&"PATH".to_owned()));
    // The shell itself sets PWD, SHLVL and _; CARGO_MANIFEST_DIR is in the environment of this test.
    let shell_made = ["TOKEN", "PWD", "OLDPWD", "SHLVL", "_"];
    for name in &names {
        assert!(
            child::BASE_ENVIRONMENT.contains(&name.as_str()) || shell_made.contains(&name.as_str()),
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_last_line_counts_without_a_break_and_returns_are_dropped() {
    let (child, mut lines) = child::start(&shell(r"printf 'a\r\nb'; exit 7"), LIMITS).unwrap();
    assert_eq!([line(&mut lines).await, line(&mut lines).await], ["a", "b"]);
    assert_eq!(lines.next().await.unwrap(), None);
    assert_eq!(child.exited().await, Exit::Code(7));
}

#[tokio::test]
async fn an_endless_line_kills_the_child() {
    let (child, mut lines) = child::start(&shell("exec cat /dev/zero"), LIMITS).unwrap();
    let error = lines.next().await.unwrap_err();
    assert_eq!(error.to_string(), "it wrote a line of more than 1000 bytes and was killed");
    assert_eq!(child.exited().await, Exit::Signal(9));
    assert_eq!(lines.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_child_that_ignores_the_end_of_input_and_sigterm_is_killed() {
    let script = "trap '' TERM; echo ready; while :; do sleep 60; done";
    let (child, mut lines) = child::start(&shell(script), LIMITS).unwrap();
    line(&mut lines).await;
    assert_eq!(child.stop().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_child_that_ignores_the_end_of_input_gets_sigterm() {
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let (child, mut lines) = child::start(&shell(script), LIMITS).unwrap();
    line(&mut lines).await;
    assert_eq!(child.stop().await, Exit::Code(5));
}

#[tokio::test]
async fn dropping_the_handle_takes_the_whole_group_down() {
    let (child, mut lines) = child::start(&shell("sleep 600 & echo $!; wait"), LIMITS).unwrap();
    let grandchild = line(&mut lines).await;
    let pid = child.pid().to_string();
    assert!(is_there(&grandchild) && is_there(&pid));
    drop(child);
    gone(&pid).await;
    gone(&grandchild).await;
}

#[tokio::test]
async fn what_a_child_leaves_behind_goes_with_it() {
    let (child, mut lines) = child::start(&shell("sleep 600 & echo $!; exit 0"), LIMITS).unwrap();
    let grandchild = line(&mut lines).await;
    assert_eq!(child.exited().await, Exit::Code(0));
    gone(&grandchild).await;
    assert_eq!(lines.next().await.unwrap(), None);
}

#[tokio::test]
async fn output_that_an_escaped_process_holds_open_ends_with_the_child() {
    let (child, mut lines) =
        child::start(&shell("setsid sleep 600 & echo $!; sleep 0.2; exit 0"), LIMITS).unwrap();
    let escaped = line(&mut lines).await;
    assert_eq!(lines.next().await.unwrap(), None);
    assert_eq!(child.exited().await, Exit::Code(0));
    let pid = rustix::process::Pid::from_raw(escaped.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_child_that_does_not_read_holds_the_sender_back() {
    let (child, mut lines) = child::start(&shell("echo ready; exec sleep 600"), LIMITS).unwrap();
    line(&mut lines).await;
    let big = Bytes::from(vec![b'x'; 1 << 20]);
    let mut taken = 0;
    // One line is being written, four wait; the sixth finds no room. The writer needs a moment to
    // take the first.
    while tokio::time::timeout(Duration::from_millis(300), child.send(big.clone())).await.is_ok() {
        taken += 1;
        assert!(taken <= 5);
    }
    assert_eq!(taken, 5);
    assert!(!child.try_send(big).unwrap());
    child.kill();
    assert_eq!(child.exited().await, Exit::Signal(9));
}

#[tokio::test]
async fn input_to_a_dead_child_is_an_error() {
    let (child, _lines) = child::start(&shell("exit 0"), LIMITS).unwrap();
    child.exited().await;
    for _ in 0..100 {
        if child.send(Bytes::from_static(b"x")).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("a dead child takes input");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let mut spec = shell("");
    spec.command = "/no/such/program".into();
    let error = child::start(&spec, LIMITS).unwrap_err().to_string();
    assert!(error.starts_with("\"/no/such/program\" could not be started: No such file"), "{error}");
    assert!(!format!("{spec:?}").contains("s3cret"));
}
