//! Starting and killing many children leaves no process and no file descriptor. Alone in its file,
//! because it counts what the whole test process holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::time::Duration;

use castra_core::ServerName;
use castra_host::child::{self, ChildLimits, ChildSpec};

const ROUNDS: usize = 200;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Children of this process, zombies included.
fn children() -> usize {
    let own = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    // pid (name) state ppid …; the name may hold anything, so the last parenthesis counts.
    stats
        .filter(|s| s.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)) == Some(&own))
        .count()
}

#[tokio::test]
async fn rounds_of_starting_and_killing_leave_nothing() {
    let limits =
        ChildLimits { line_bytes_max: 1000, stdin_queue_max: 4, stop_time_max: Duration::from_secs(5) };
    let spec = ChildSpec {
        name: ServerName::new("test").unwrap(),
        command: "/bin/sh".into(),
        args: vec!["-c".into(), "sleep 600 & echo ready; exec cat".into()],
        env: Vec::new(),
        cwd: None,
    };
    let mut before = 0;
    for round in 0..=ROUNDS {
        let (child, mut lines) = child::start(&spec, limits).unwrap();
        // Some are killed before they are up, some stopped in good order, most dropped.
        match round % 4 {
            0 => drop(child),
            1 => {
                lines.next().await.unwrap();
                child.stop().await;
            }
            2 => {
                lines.next().await.unwrap();
                child.kill();
                child.exited().await;
            }
            _ => {
                lines.next().await.unwrap();
                drop(lines);
                drop(child);
            }
        }
        if round == 0 {
            settle(0).await;
            before = descriptors();
        }
    }
    settle(before).await;
    assert_eq!(children(), 0);
    assert!(descriptors() <= before, "{} descriptors before, {} after", before, descriptors());
}

/// Reaping runs beside us: waits until no child is left and descriptors are down to `want` (0: any).
async fn settle(want: usize) {
    for _ in 0..500 {
        if children() == 0 && (want == 0 || descriptors() <= want) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
