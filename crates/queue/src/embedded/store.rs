//! What lies in SQLite, and how it is written and read.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::event::What;
use netpulse_model::job::RetryPolicy;
use netpulse_model::{DeviceKey, Job, JobId, JobKind, JobResult, JobStatus, Priority, QueueName, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params};

use crate::api::{DeliveryId, JobCounts, JobQuery, KnownLines, NodeName, Page};
use crate::clock::micros;
use crate::core::{Live, Mark, Posted, Record, Sealed};

/// Version of the tables; a store of a newer one is refused.
const VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE jobs (
    seq         INTEGER PRIMARY KEY,   -- order of acceptance
    id          BLOB NOT NULL UNIQUE,  -- the UUID's 16 bytes
    status      TEXT NOT NULL,
    queue       TEXT NOT NULL,
    device      TEXT,
    host        TEXT,
    kind        TEXT NOT NULL,
    priority    TEXT NOT NULL,
    driver      TEXT NOT NULL,
    device_name TEXT,
    command     TEXT,                  -- JSON, masked
    created_at  INTEGER NOT NULL,      -- all times: microseconds, UTC
    enqueued_at INTEGER,
    started_at  INTEGER,
    ended_at    INTEGER,
    not_before  INTEGER,
    expires_at  INTEGER,
    worker      TEXT,
    node        TEXT,
    attempt     INTEGER NOT NULL,
    lost        INTEGER NOT NULL,      -- workers lost under it
    ttl         INTEGER NOT NULL,
    timeout     INTEGER NOT NULL,
    result_ttl  INTEGER NOT NULL,
    retry       TEXT NOT NULL,         -- JSON
    cancel      TEXT,                  -- why it is to be canceled
    idem        TEXT,
    digest      BLOB NOT NULL
);
CREATE INDEX jobs_status  ON jobs (status, seq);
CREATE INDEX jobs_queue   ON jobs (queue, seq);
CREATE INDEX jobs_host    ON jobs (host, seq) WHERE host IS NOT NULL;
CREATE INDEX jobs_node    ON jobs (node, seq) WHERE node IS NOT NULL;
CREATE INDEX jobs_created ON jobs (created_at);
CREATE INDEX jobs_expires ON jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_idem    ON jobs (idem) WHERE idem IS NOT NULL;
CREATE TABLE payloads (seq INTEGER PRIMARY KEY, sealed BLOB NOT NULL, notify BLOB); -- both sealed
CREATE TABLE results  (seq INTEGER PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE notes    (seq INTEGER NOT NULL, at INTEGER NOT NULL, json TEXT NOT NULL);
CREATE INDEX notes_seq ON notes (seq);
CREATE TABLE meta     (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// Messages about jobs that ended, in the order of their ends; whole, since the jobs expire.
const OUTBOX: &str = "
CREATE TABLE outbox (
    place   INTEGER PRIMARY KEY AUTOINCREMENT,
    id      BLOB NOT NULL,             -- the delivery's UUID
    job     BLOB NOT NULL,             -- the job's UUID
    content TEXT NOT NULL,             -- the job as it ended, JSON
    sealed  BLOB NOT NULL,             -- whom to tell
    attempt INTEGER NOT NULL,          -- attempts made or lost
    due     INTEGER NOT NULL           -- not before this
);
";

/// From the tables of each version to those of the next.
const MIGRATIONS: [&str; 1] = ["ALTER TABLE payloads ADD COLUMN notify BLOB;"];

const COLUMNS: &str = "j.id, j.status, j.queue, j.device, j.kind, j.priority, j.driver, j.device_name, \
    j.command, j.attempt, j.created_at, j.enqueued_at, j.started_at, j.ended_at, j.worker, r.json, j.seq";

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    #[error(
        "it was made by a newer version (tables {found}, known up to {VERSION}): start that version again, or use another folder"
    )]
    Newer { found: i64 },
}

/// Opens the file for its one writer, making or checking the tables.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "journal_size_limit", 64 << 20)?;
    db.pragma_update(None, "cache_size", -8192)?;
    db.set_prepared_statement_cache_capacity(32);
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        return Err(StoreError::Newer { found });
    }
    if found == 0 {
        db.execute_batch(&format!(
            "BEGIN IMMEDIATE; {SCHEMA} {OUTBOX} PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
    } else if found < VERSION {
        let steps = MIGRATIONS[usize::try_from(found - 1).unwrap_or(0)..].concat();
        db.execute_batch(&format!(
            "BEGIN IMMEDIATE; {steps} {OUTBOX} PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
    }
    Ok(db)
}

/// Opens the file for reading only.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "cache_size", -4096)?;
    Ok(db)
}

/// A job on its way in, with what only the store needs.
pub(super) struct Accept {
    pub(super) live: Live,
    pub(super) sealed: Arc<Sealed>,
    /// Whom to tell of its end, sealed.
    pub(super) notify: Option<Vec<u8>>,
    pub(super) idempotency_key: Option<String>,
    pub(super) digest: [u8; 32],
}

/// What became of an [`Accept`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    Yes,
    /// The key stands for this job.
    Known(JobId),
    /// The key stands for this job, of another request.
    Reused(JobId),
}

/// Numbers that outlive a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Boot {
    /// Counts the openings of this store, from 1.
    pub(super) number: u64,
    /// The first event id of this run.
    pub(super) events: u64,
    /// The last place in the order of acceptance.
    pub(super) seq: u64,
    /// When the last job was accepted.
    pub(super) last_created: Timestamp,
}

/// A job that had not ended when the store was last closed, or its process lost.
pub(super) struct Left {
    pub(super) live: Live,
    /// For one that ran: the node that had it.
    pub(super) node: NodeName,
}

/// Counts this opening, durably, and reads where the numbers stand.
pub(super) fn boot(db: &mut Connection, now: Timestamp) -> rusqlite::Result<Boot> {
    let tx = db.transaction()?;
    let get = |key: &str| -> rusqlite::Result<i64> {
        Ok(tx
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()?
            .unwrap_or(0))
    };
    let number = get("boots")? + 1;
    // Ids stay below 2^53 (safe in JSON) and above those of the last run: that one began at
    // `events` and had at most 2^32 of them, or the clock has moved on by more.
    let before = get("events")?;
    let events = if before == 0 { now.0 } else { now.0.max(before + (1 << 32)) };
    let (seq, created): (i64, i64) =
        tx.query_row("SELECT coalesce(max(seq), 0), coalesce(max(created_at), 0) FROM jobs", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    for (key, value) in [("boots", number), ("events", events)] {
        tx.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", params![key, value])?;
    }
    tx.commit()?;
    Ok(Boot {
        number: number.unsigned_abs(),
        events: events.unsigned_abs(),
        seq: seq.unsigned_abs(),
        last_created: Timestamp(created),
    })
}

/// The jobs that have not ended, in order of acceptance, without their payloads.
pub(super) fn left(db: &Connection) -> rusqlite::Result<Vec<Left>> {
    let mut statement = db.prepare(&format!(
        "SELECT {COLUMNS}, j.ttl, j.timeout, j.result_ttl, j.retry, j.not_before, j.lost, j.cancel, \
         coalesce(j.node, ''), \
         EXISTS (SELECT 1 FROM payloads p WHERE p.seq = j.seq AND p.notify IS NOT NULL) \
         FROM jobs j LEFT JOIN results r ON r.seq = j.seq \
         WHERE j.status IN ('queued', 'scheduled', 'started') ORDER BY j.seq"
    ))?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let job = job_of(row)?;
        let seq: i64 = row.get(16)?;
        let span = |at| row.get::<_, i64>(at).map(|micros| Duration::from_micros(micros.unsigned_abs()));
        let retry: RetryPolicy = json_of(row, 20)?;
        let mut live = Live::new(job, seq.unsigned_abs(), span(17)?, span(18)?, span(19)?, retry, None);
        live.not_before = row.get::<_, Option<i64>>(21)?.map(Timestamp);
        live.lost = row.get(22)?;
        live.cancel = row.get(23)?;
        live.notifies = row.get(25)?;
        if live.job.status == JobStatus::Started {
            live.known = notes(db, seq)?;
        }
        found.push(Left { live, node: row.get(24)? });
    }
    Ok(found)
}

fn notes(db: &Connection, seq: i64) -> rusqlite::Result<KnownLines> {
    let mut known = KnownLines::default();
    let mut statement = db.prepare_cached("SELECT json FROM notes WHERE seq = ?1 ORDER BY rowid")?;
    let mut rows = statement.query([seq])?;
    while let Some(row) = rows.next()? {
        known.note(&json_of::<What>(row, 0)?);
    }
    Ok(known)
}

/// Ends that are kept, by state.
pub(super) fn ended_counts(db: &Connection) -> rusqlite::Result<JobCounts> {
    let mut counts = JobCounts::default();
    let mut statement = db.prepare("SELECT status, count(*) FROM jobs GROUP BY status")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (status, count): (String, i64) = (row.get(0)?, row.get(1)?);
        match status.as_str() {
            "finished" => counts.finished = count.unsigned_abs(),
            "failed" => counts.failed = count.unsigned_abs(),
            "canceled" => counts.canceled = count.unsigned_abs(),
            _ => {}
        }
    }
    Ok(counts)
}

/// When the next kept end is to be forgotten.
pub(super) fn next_expiry(db: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let at: Option<i64> =
        db.query_row("SELECT min(expires_at) FROM jobs WHERE expires_at IS NOT NULL", [], |row| row.get(0))?;
    Ok(at.map(Timestamp))
}

// --- writing -----------------------------------------------------------------------------------

/// The job that an idempotency key stands for, if it is known (promise 8).
pub(super) fn by_key(
    db: &Connection,
    key: &str,
    digest: [u8; 32],
    now: Timestamp,
) -> rusqlite::Result<Option<Inserted>> {
    let known: Option<(Vec<u8>, Vec<u8>)> = db
        .prepare_cached(
            "SELECT id, digest FROM jobs WHERE idem = ?1 AND (expires_at IS NULL OR expires_at > ?2) \
             ORDER BY seq DESC LIMIT 1",
        )?
        .query_row(params![key, now.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((id, of)) = known else { return Ok(None) };
    let id = id_of(&id, 0)?;
    Ok(Some(if of == digest { Inserted::Known(id) } else { Inserted::Reused(id) }))
}

/// Writes an accepted job, unless its key or id is known already.
pub(super) fn insert(tx: &Transaction<'_>, accept: &Accept, now: Timestamp) -> rusqlite::Result<Inserted> {
    if let Some(key) = &accept.idempotency_key
        && let Some(known) = by_key(tx, key, accept.digest, now)?
    {
        return Ok(known);
    }
    let (live, job) = (&accept.live, &accept.live.job);
    let changed = tx
        .prepare_cached(
            "INSERT INTO jobs (seq, id, status, queue, device, host, kind, priority, driver, device_name, \
             command, created_at, enqueued_at, attempt, lost, ttl, timeout, result_ttl, retry, idem, digest) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, 0, ?14, ?15, ?16, ?17, ?18, ?19) \
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            signed(live.seq),
            job.id.0.as_bytes(),
            job.status.as_str(),
            job.queue.to_string(),
            job.device.as_ref().map(DeviceKey::as_str),
            job.device.as_ref().map(DeviceKey::host),
            kind_word(job.kind),
            job.priority.as_str(),
            job.driver,
            job.device_name,
            job.command.as_ref().map(to_json).transpose()?,
            job.created_at.0,
            job.enqueued_at.map(|at| at.0),
            micros(live.ttl),
            micros(live.timeout),
            micros(live.result_ttl),
            to_json(&live.retry)?,
            accept.idempotency_key,
            accept.digest,
        ])?;
    if changed == 0 {
        return Ok(Inserted::Known(job.id));
    }
    tx.prepare_cached("INSERT INTO payloads (seq, sealed, notify) VALUES (?1, ?2, ?3)")?.execute(params![
        signed(live.seq),
        accept.sealed.bytes(),
        accept.notify
    ])?;
    Ok(Inserted::Yes)
}

/// What writing one change brought about.
#[derive(Default)]
pub(super) struct Wrote {
    /// For an end: the bytes of its result.
    pub(super) size: usize,
    /// For an end that somebody is to be told of.
    pub(super) posted: Option<Posted>,
}

/// Writes one change.
pub(super) fn write(tx: &Transaction<'_>, record: &Record) -> rusqlite::Result<Wrote> {
    let seq = signed(record.seq());
    match record {
        Record::Start { job, node, .. } => {
            tx.prepare_cached(
                "UPDATE jobs SET status = ?2, attempt = ?3, started_at = ?4, worker = ?5, node = ?6, \
                 not_before = NULL WHERE seq = ?1",
            )?
            .execute(params![
                seq,
                job.status.as_str(),
                job.attempt,
                job.started_at.map(|at| at.0),
                job.worker,
                node
            ])?;
        }
        Record::Wait { job, not_before, lost, .. } => {
            tx.prepare_cached(
                "UPDATE jobs SET status = ?2, attempt = ?3, enqueued_at = ?4, not_before = ?5, lost = ?6, \
                 started_at = NULL, worker = NULL, node = NULL WHERE seq = ?1",
            )?
            .execute(params![
                seq,
                job.status.as_str(),
                job.attempt,
                job.enqueued_at.map(|at| at.0),
                not_before.map(|at| at.0),
                lost
            ])?;
            tx.prepare_cached("DELETE FROM notes WHERE seq = ?1")?.execute([seq])?;
        }
        Record::Note { index, note, .. } => {
            tx.prepare_cached("INSERT INTO notes (seq, at, json) VALUES (?1, ?2, ?3)")?.execute(params![
                seq,
                i64::try_from(*index).unwrap_or(i64::MAX),
                to_json(note)?
            ])?;
        }
        Record::CancelAsked { reason, .. } => {
            tx.prepare_cached("UPDATE jobs SET cancel = ?2 WHERE seq = ?1")?.execute(params![seq, reason])?;
        }
        Record::End { job, node, lost, expires_at, notifies, .. } => {
            let result = job.result.as_deref().map(to_json).transpose()?;
            tx.prepare_cached(
                "UPDATE jobs SET status = ?2, attempt = ?3, started_at = ?4, ended_at = ?5, worker = ?6, \
                 node = ?7, lost = ?8, expires_at = ?9, enqueued_at = ?10, not_before = NULL WHERE seq = ?1",
            )?
            .execute(params![
                seq,
                job.status.as_str(),
                job.attempt,
                job.started_at.map(|at| at.0),
                job.ended_at.map(|at| at.0),
                job.worker,
                node,
                lost,
                expires_at.0,
                job.enqueued_at.map(|at| at.0),
            ])?;
            if let Some(result) = &result {
                tx.prepare_cached("INSERT OR REPLACE INTO results (seq, json) VALUES (?1, ?2)")?
                    .execute(params![seq, result])?;
            }
            let posted = if *notifies { post(tx, seq, job)? } else { None };
            // The request is of no use any more, and it is the one place that holds secrets.
            tx.prepare_cached("DELETE FROM payloads WHERE seq = ?1")?.execute([seq])?;
            if job.kind == JobKind::Modification {
                tx.prepare_cached("DELETE FROM notes WHERE seq = ?1")?.execute([seq])?;
            }
            return Ok(Wrote { size: result.map_or(0, |text| text.len()), posted });
        }
    }
    Ok(Wrote::default())
}

/// Puts the message about a job that ends into the outbox, if it asked for one and has not had it.
fn post(tx: &Transaction<'_>, seq: i64, job: &Job) -> rusqlite::Result<Option<Posted>> {
    let id = DeliveryId::new_v4();
    let due = job.ended_at.unwrap_or(job.created_at);
    let place: Option<i64> = tx
        .prepare_cached(
            "INSERT INTO outbox (id, job, content, sealed, attempt, due) \
             SELECT ?2, ?3, ?4, notify, 0, ?5 FROM payloads WHERE seq = ?1 AND notify IS NOT NULL \
             RETURNING place",
        )?
        .query_row(params![seq, id.as_bytes(), job.id.0.as_bytes(), to_json(job)?, due.0], |row| row.get(0))
        .optional()?;
    Ok(place.map(|place| Posted { place: place.unsigned_abs(), id, job: job.id, attempt: 0, due }))
}

/// Writes how messages of the outbox stand.
pub(super) fn mark(tx: &Transaction<'_>, marks: &[Mark]) -> rusqlite::Result<()> {
    for mark in marks {
        match *mark {
            Mark::Attempt { place, attempt } => tx
                .prepare_cached("UPDATE outbox SET attempt = ?2 WHERE place = ?1")?
                .execute(params![signed(place), attempt])?,
            Mark::Due { place, attempt, due } => tx
                .prepare_cached("UPDATE outbox SET attempt = ?2, due = ?3 WHERE place = ?1")?
                .execute(params![signed(place), attempt, due.0])?,
            Mark::Gone { place } => {
                tx.prepare_cached("DELETE FROM outbox WHERE place = ?1")?.execute([signed(place)])?
            }
        };
    }
    Ok(())
}

/// Every message that nobody has received yet.
pub(super) fn outbox(db: &Connection) -> rusqlite::Result<Vec<Posted>> {
    let mut statement = db.prepare("SELECT place, id, job, attempt, due FROM outbox ORDER BY place")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (place, id): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        found.push(Posted {
            place: place.unsigned_abs(),
            id: id_of(&id, 1)?.0,
            job: id_of(&row.get::<_, Vec<u8>>(2)?, 2)?,
            attempt: row.get(3)?,
            due: Timestamp(row.get(4)?),
        });
    }
    Ok(found)
}

/// A message's content: the job as it ended, and whom to tell, sealed.
pub(super) fn message(db: &Connection, place: u64) -> rusqlite::Result<Option<(Job, Vec<u8>)>> {
    db.prepare_cached("SELECT content, sealed FROM outbox WHERE place = ?1")?
        .query_row([signed(place)], |row| Ok((json_of(row, 0)?, row.get(1)?)))
        .optional()
}

/// Forgets ends whose time has come, at most `limit`; says how many of each state.
pub(super) fn sweep(tx: &Transaction<'_>, now: Timestamp, limit: u32) -> rusqlite::Result<JobCounts> {
    let mut gone = JobCounts::default();
    let mut statement = tx.prepare_cached(
        "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE expires_at <= ?1 \
         ORDER BY expires_at LIMIT ?2) RETURNING seq, status",
    )?;
    let rows: Vec<(i64, String)> = statement
        .query_map(params![now.0, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (seq, status) in rows {
        tx.prepare_cached("DELETE FROM results WHERE seq = ?1")?.execute([seq])?;
        match status.as_str() {
            "finished" => gone.finished += 1,
            "failed" => gone.failed += 1,
            _ => gone.canceled += 1,
        }
    }
    Ok(gone)
}

/// Changes one row, to see that the store can be written.
pub(super) fn touch(tx: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('touched', ?1)")?.execute([now.0])?;
    Ok(())
}

/// Of several changes of one job in one transaction only the end matters: it writes the whole row.
pub(super) fn superseded<'a>(records: impl Iterator<Item = &'a Record>) -> HashSet<u64> {
    records.filter(|record| matches!(record, Record::End { .. })).map(Record::seq).collect()
}

// --- reading -----------------------------------------------------------------------------------

/// One job, unless its time has come.
pub(super) fn job(db: &Connection, id: JobId, now: Timestamp) -> rusqlite::Result<Option<Job>> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM jobs j LEFT JOIN results r ON r.seq = j.seq \
         WHERE j.id = ?1 AND (j.expires_at IS NULL OR j.expires_at > ?2)"
    ))?
    .query_row(params![id.0.as_bytes(), now.0], job_of)
    .optional()
}

/// A job's sealed request.
pub(super) fn payload(db: &Connection, seq: u64) -> rusqlite::Result<Option<Vec<u8>>> {
    db.prepare_cached("SELECT sealed FROM payloads WHERE seq = ?1")?
        .query_row([signed(seq)], |row| row.get(0))
        .optional()
}

/// A page of jobs, newest first. The cursor is the last one's place in the order of acceptance,
/// which never changes, so pages stay apart whatever comes and goes between them.
pub(super) fn list(db: &Connection, query: &JobQuery, now: Timestamp) -> rusqlite::Result<Page> {
    use rusqlite::types::Value;
    let mut sql = format!(
        "SELECT {COLUMNS} FROM jobs j LEFT JOIN results r ON r.seq = j.seq \
         WHERE (j.expires_at IS NULL OR j.expires_at > ?)"
    );
    let mut values: Vec<Value> = vec![Value::Integer(now.0)];
    if let Some(queue) = &query.queue {
        sql.push_str(" AND j.queue = ?");
        values.push(Value::Text(queue.to_string()));
    }
    if !query.status.is_empty() {
        let marks = vec!["?"; query.status.len()].join(", ");
        sql.push_str(&format!(" AND j.status IN ({marks})"));
        values.extend(query.status.iter().map(|status| Value::Text(status.as_str().to_owned())));
    }
    if let Some(node) = &query.node {
        sql.push_str(" AND j.node = ?");
        values.push(Value::Text(node.clone()));
    }
    if let Some(host) = &query.host {
        let host = host.trim().to_ascii_lowercase();
        if host.contains("]:") || host.matches(':').count() == 1 {
            sql.push_str(" AND j.device = ? AND j.host = ?");
            let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
            let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            values.push(Value::Text(host));
            values.push(Value::Text(name));
        } else {
            sql.push_str(" AND j.host = ?");
            values.push(Value::Text(host.trim_start_matches('[').trim_end_matches(']').to_owned()));
        }
    }
    // Acceptance times never run backwards, so a bound in time is a bound in order.
    if let Some(since) = query.since {
        sql.push_str(
            " AND j.seq >= coalesce((SELECT seq FROM jobs WHERE created_at >= ? \
             ORDER BY created_at, seq LIMIT 1), 9223372036854775807)",
        );
        values.push(Value::Integer(since.0));
    }
    if let Some(until) = query.until {
        sql.push_str(
            " AND j.seq <= coalesce((SELECT seq FROM jobs WHERE created_at < ? \
             ORDER BY created_at DESC, seq DESC LIMIT 1), 0)",
        );
        values.push(Value::Integer(until.0));
    }
    if let Some(cursor) = &query.cursor {
        sql.push_str(" AND j.seq < ?");
        // A cursor that is none of ours finds nothing rather than everything again.
        values.push(Value::Integer(cursor.parse().unwrap_or(0)));
    }
    sql.push_str(" ORDER BY j.seq DESC");
    if query.limit > 0 {
        sql.push_str(" LIMIT ?");
        values.push(Value::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX - 1).saturating_add(1)));
    }
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let (mut jobs, mut next, mut last) = (Vec::new(), None, 0_i64);
    while let Some(row) = rows.next()? {
        if query.limit > 0 && jobs.len() == query.limit {
            next = Some(last.to_string());
            break;
        }
        last = row.get(16)?;
        jobs.push(job_of(row)?);
    }
    Ok(Page { jobs, next })
}

/// Reads the columns of [`COLUMNS`].
fn job_of(row: &Row<'_>) -> rusqlite::Result<Job> {
    let id: Vec<u8> = row.get(0)?;
    let kind: String = row.get(4)?;
    let priority: String = row.get(5)?;
    let device: Option<String> = row.get(3)?;
    let result: Option<String> = row.get(15)?;
    let at = |column| row.get::<_, Option<i64>>(column).map(|at| at.map(Timestamp));
    Ok(Job {
        id: id_of(&id, 0)?,
        status: word_of(row, 1, |word| word.parse::<JobStatus>().ok())?,
        queue: word_of(row, 2, |word| word.parse::<QueueName>().ok())?,
        device: device.map(|key| from_json(3, &format!("{key:?}"))).transpose()?,
        kind: if kind == "modification" { JobKind::Modification } else { JobKind::Query },
        priority: match priority.as_str() {
            "high" => Priority::High,
            "low" => Priority::Low,
            _ => Priority::Normal,
        },
        driver: row.get(6)?,
        device_name: row.get(7)?,
        command: row.get::<_, Option<String>>(8)?.map(|text| from_json(8, &text)).transpose()?,
        task_id: None,
        attempt: row.get(9)?,
        created_at: Timestamp(row.get(10)?),
        enqueued_at: at(11)?,
        started_at: at(12)?,
        ended_at: at(13)?,
        worker: row.get(14)?,
        result: result.map(|text| from_json::<JobResult>(15, &text)).transpose()?.map(Arc::new),
    })
}

fn kind_word(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Query => "query",
        JobKind::Modification => "modification",
    }
}

fn word_of<T>(row: &Row<'_>, column: usize, read: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let word: String = row.get(column)?;
    read(&word).ok_or_else(|| {
        let text = format!("`{word}` in column {column} is no known word");
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, text.into())
    })
}

fn id_of(bytes: &[u8], column: usize) -> rusqlite::Result<JobId> {
    uuid::Uuid::from_slice(bytes)
        .map(JobId)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error)))
}

fn json_of<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    from_json(column, &row.get::<_, String>(column)?)
}

fn from_json<T: serde::de::DeserializeOwned>(column: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// SQLite's integers are signed; ours stay far below the difference.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
