//! Tests of the queue on disk: restarts, crashes, damage and limits.

use std::{
    fs::OpenOptions,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        queue::{AppendError, Budget, DiskQueue, Folder, HEADER},
        *,
    },
    *,
};

const ENOUGH: Duration = Duration::from_secs(20);

/// Returns a folder with `count` unsent requests of one span each, numbered from 0.
async fn unsent(count: u64) -> Scratch {
    let scratch = Scratch::new();
    let forwarder = start(&forwarding_to(&Backend::down().await, &scratch));
    for id in 0..count {
        forwarder.accept(&one(id));
    }
    forwarder.finish(Duration::ZERO).await;
    assert_eq!(scratch.segments().len(), 1);
    scratch
}

/// Returns the spans that a new process sends from `scratch`.
async fn sent_from(scratch: &Scratch) -> BTreeSet<u64> {
    let backend = Backend::start().await;
    let forwarder = start(&forwarding_to(&backend, scratch));
    forwarder.finish(ENOUGH).await;
    assert_eq!(forwarder.status().queued_bytes, 0);
    assert_eq!(forwarder.status().dropped_requests, 0);
    backend.accepted()
}

fn damage(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 0x55;
    file.write_all_at(&byte, at).unwrap();
}

fn queue(scratch: &Scratch, limit: u64) -> DiskQueue {
    let budget = Arc::new(Budget::new(limit));
    let folder = Arc::new(Folder::lock(&scratch.queue()).unwrap());
    DiskQueue::open(folder, Signal::Traces, budget).unwrap()
}

fn append(queue: &DiskQueue, request: &[u8]) -> Result<(), AppendError> {
    queue.append([&[0; HEADER], request].concat(), 1)
}

/// Removes all requests from `queue` and returns them.
fn drain(queue: &DiskQueue) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    while let Some(batch) = queue.read(1, 1).unwrap() {
        queue.commit(&batch).unwrap();
        if batch.records > 0 {
            requests.push(batch.request);
        }
    }
    assert_eq!(queue.pending(), 0);
    requests
}

#[tokio::test]
async fn unsent_requests_are_sent_by_the_next_process() {
    let scratch = unsent(100).await;
    assert_eq!(sent_from(&scratch).await, set(0..100));
    assert_eq!(sent_from(&scratch).await, set([]));
    assert_eq!(scratch.segments().len(), 0);
}

#[tokio::test]
async fn a_killed_process_leaves_everything_it_accepted() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let forwarder = start(&forwarding_to(&backend, &scratch));
    for round in 0..10 {
        for id in 0..50 {
            forwarder.accept(&one(round * 50 + id));
            tokio::task::yield_now().await;
        }
        // Like a kill, copying keeps the files as the last system calls left them.
        let killed = scratch.copy();
        let before = backend.accepted();
        let after = sent_from(&killed).await;
        let accepted = set(0..(round + 1) * 50);
        assert_eq!(before.union(&after).copied().collect::<BTreeSet<_>>(), accepted);
    }
}

#[tokio::test]
async fn a_full_queue_rejects_requests_and_loses_none() {
    let scratch = Scratch::new();
    let limit = 256 << 10;
    let small = |backend: &Backend| Forwarding {
        queue_limit: limit,
        ..forwarding_to(backend, &scratch)
    };
    let forwarder = start(&small(&Backend::down().await));
    let mut accepted = BTreeSet::new();
    for id in 0..600 {
        let before = forwarder.status().dropped_requests;
        forwarder.accept(&long(id, 1000));
        if forwarder.status().dropped_requests == before {
            accepted.insert(id);
        }
    }
    assert_eq!(forwarder.status().dropped_requests, 600 - accepted.len() as u64);
    let on_disk: u64 = scratch
        .segments()
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    // An eighth is reserved for each of the other signals.
    assert!(on_disk <= limit * 3 / 4 && on_disk > limit / 2, "{on_disk}");
    assert_eq!(on_disk, forwarder.status().queued_bytes);
    forwarder.finish(Duration::ZERO).await;
    drop(forwarder);

    let backend = Backend::start().await;
    let forwarder = start(&small(&backend));
    until("everything is accepted", || forwarder.status().queued_bytes == 0).await;
    assert_eq!(backend.accepted(), accepted);
    // There is space again.
    forwarder.accept(&one(1000));
    until("the request is accepted", || backend.accepted().contains(&1000)).await;
    assert_eq!(forwarder.status().dropped_requests, 0);
}

#[tokio::test]
async fn an_incomplete_last_record_is_cut_off() {
    let scratch = unsent(3).await;
    let segment = scratch.segments().remove(0);
    let length = segment.metadata().unwrap().len();
    let record = length / 3;
    for missing in [1, record - HEADER as u64, record - 1, record] {
        let torn = scratch.copy();
        let file = OpenOptions::new().write(true).open(&torn.segments()[0]).unwrap();
        file.set_len(length - missing).unwrap();
        drop(file);
        assert_eq!(sent_from(&torn).await, set([0, 1]), "{missing}");
    }
}

#[tokio::test]
async fn a_damaged_record_does_not_affect_the_others() {
    let scratch = unsent(5).await;
    let length = scratch.segments()[0].metadata().unwrap().len();
    let record = length / 5;
    for at in 0..record {
        let damaged = scratch.copy();
        damage(&damaged.segments()[0], 2 * record + at);
        assert_eq!(sent_from(&damaged).await, set([0, 1, 3, 4]), "{at}");
    }
}

#[test]
fn a_record_after_a_long_damaged_one_is_found_at_any_offset() {
    for length in (256 << 10) - 45..(256 << 10) - 15 {
        let scratch = Scratch::new();
        let queue = queue(&scratch, 64 << 20);
        append(&queue, &vec![7; length]).unwrap();
        append(&queue, b"next").unwrap();
        damage(&scratch.queue().join("traces/0000000000000001.segment"), 0);
        assert_eq!(drain(&queue), [b"next"], "{length}");
    }
}

#[test]
fn text_that_looks_like_a_record_is_not_mistaken_for_one() {
    let scratch = Scratch::new();
    {
        let queue = queue(&scratch, 1 << 20);
        append(&queue, b"forged").unwrap();
    }
    let segment = |id: u64| scratch.queue().join(format!("traces/{id:016x}.segment"));
    let forged = fs::read(segment(1)).unwrap();
    let queue = queue(&scratch, 1 << 20);
    append(&queue, &[b"before", &forged[..], b"after"].concat()).unwrap();
    append(&queue, b"last").unwrap();
    damage(&segment(2), 4);
    assert_eq!(drain(&queue), [b"forged".to_vec(), b"last".to_vec()]);
}

#[test]
fn a_segment_of_noise_is_skipped() {
    let scratch = Scratch::new();
    drop(queue(&scratch, 1 << 20));
    let noise: Vec<u8> = (0..600_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for id in 1..=3 {
        fs::write(scratch.queue().join(format!("traces/{id:016x}.segment")), &noise).unwrap();
    }
    fs::write(scratch.queue().join("traces/notes.txt"), "not a segment").unwrap();
    let queue = queue(&scratch, 8 << 20);
    append(&queue, b"real").unwrap();
    assert_eq!(drain(&queue), [b"real"]);
    assert!(scratch.queue().join("traces/notes.txt").exists());
}

#[test]
fn a_missing_segment_is_skipped() {
    let scratch = Scratch::new();
    let queue = queue(&scratch, 1 << 20);
    append(&queue, b"first").unwrap();
    fs::remove_file(scratch.queue().join("traces/0000000000000001.segment")).unwrap();
    let batch = queue.read(1, 1).unwrap().unwrap();
    assert_eq!(batch.records, 0);
    // The file is already deleted.
    queue.commit(&batch).unwrap_err();
    append(&queue, b"second").unwrap();
    assert_eq!(drain(&queue), [b"second"]);
}

#[test]
fn a_damaged_cursor_causes_everything_to_be_sent_again() {
    let scratch = Scratch::new();
    {
        let queue = queue(&scratch, 1 << 20);
        append(&queue, b"first").unwrap();
        append(&queue, b"second").unwrap();
        let batch = queue.read(1, 1).unwrap().unwrap();
        queue.commit(&batch).unwrap();
    }
    let reopened = scratch.copy();
    assert_eq!(drain(&queue(&reopened, 1 << 20)), [b"second"]);
    for damaged in [&b""[..], b"nonsense", &[0xff; 20]] {
        let copy = scratch.copy();
        fs::write(copy.queue().join("traces/cursor"), damaged).unwrap();
        let all = [b"first".to_vec(), b"second".to_vec()];
        assert_eq!(drain(&queue(&copy, 1 << 20)), all);
    }
}

#[test]
fn segments_are_deleted_as_they_are_sent() {
    let scratch = Scratch::new();
    let queue = queue(&scratch, 320 << 10);
    let segments = || fs::read_dir(scratch.queue().join("traces")).unwrap().count();
    for _ in 0..100 {
        append(&queue, &[7; 1000]).unwrap();
    }
    let full = segments();
    assert!(full >= 9, "{full}");
    for _ in 0..50 {
        let batch = queue.read(1, 1).unwrap().unwrap();
        queue.commit(&batch).unwrap();
    }
    assert!(segments() <= full / 2 + 2, "{} of {full}", segments());
    assert_eq!(drain(&queue).len(), 50);
    // Only the cursor is left.
    assert_eq!(segments(), 1);
}

#[test]
fn sent_records_free_space_even_for_the_longest_record() {
    let scratch = Scratch::new();
    let queue = queue(&scratch, 100_000);
    for _ in 0..100 {
        append(&queue, &[7; 70_000]).unwrap();
        assert!(matches!(append(&queue, &[7; 70_000]), Err(AppendError::Full)));
        assert_eq!(drain(&queue).len(), 1);
    }
    assert!(matches!(append(&queue, &[7; 100_000]), Err(AppendError::Full)));
}

#[tokio::test]
async fn a_deleted_folder_is_reported_and_works_again_once_recreated() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let forwarder = start(&forwarding_to(&backend, &scratch));
    let traces = scratch.queue().join("traces");
    fs::remove_dir_all(&traces).unwrap();
    forwarder.accept(&one(1));
    forwarder.accept(&one(2));
    assert_eq!(forwarder.status().dropped_requests, 2);
    assert_eq!(forwarder.status().queued_bytes, 0);
    fs::create_dir(&traces).unwrap();
    forwarder.accept(&one(3));
    until("the request is accepted", || backend.accepted() == set([3])).await;
    assert_eq!(forwarder.status().dropped_requests, 2);
}

#[tokio::test]
async fn a_folder_is_used_by_one_process_at_a_time() {
    let (backend, scratch) = (Backend::down().await, Scratch::new());
    let first = start(&forwarding_to(&backend, &scratch));
    let error = Forwarder::start(&forwarding_to(&backend, &scratch)).unwrap_err();
    assert!(matches!(error, StartError::Folder(FolderError::InUse(_))));
    let text = error.to_string();
    assert!(text.contains("is used by another process"), "{text}");
    assert!(text.contains(scratch.queue().to_str().unwrap()), "{text}");
    first.finish(Duration::ZERO).await;
    drop(first);
    Forwarder::start(&forwarding_to(&backend, &scratch)).unwrap();
}

#[tokio::test]
async fn a_folder_that_cannot_be_created_is_an_error_at_start() {
    let (backend, scratch) = (Backend::down().await, Scratch::new());
    fs::write(scratch.queue(), "a file").unwrap();
    let error = Forwarder::start(&forwarding_to(&backend, &scratch)).unwrap_err();
    assert!(matches!(error, StartError::Folder(FolderError::Io { .. })));
}

#[tokio::test]
async fn only_the_owner_can_read_the_queue() {
    let scratch = unsent(1).await;
    let backend = Backend::start().await;
    let forwarder = start(&forwarding_to(&backend, &scratch));
    until("the request is accepted", || forwarder.status().queued_bytes == 0).await;
    forwarder.finish(Duration::ZERO).await;
    drop(forwarder);
    let forwarder = start(&forwarding_to(&Backend::down().await, &scratch));
    forwarder.accept(&one(2));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let traces = scratch.queue().join("traces");
    for folder in [&scratch.queue(), &traces] {
        assert_eq!(mode(folder), 0o700, "{folder:?}");
    }
    let segment = scratch.segments().remove(0);
    for file in [&scratch.queue().join("lock"), &traces.join("cursor"), &segment] {
        assert_eq!(mode(file), 0o600, "{file:?}");
    }
}
