//! Secrets kept for a short time, and one question to Vault however many ask at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use netpulse_plugin::{Failed, PluginError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fields::Fields;

/// Secrets kept at a time.
const MOST: usize = 1024;

/// Which secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) namespace: Option<String>,
    pub(super) mount: String,
    pub(super) path: String,
    pub(super) version: Option<u64>,
}

/// Its fields, or why there are none.
pub(super) type Answer = Result<Arc<Fields>, PluginError>;

pub(super) struct Cache {
    ttl: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: HashMap<Key, Kept>,
    flights: HashMap<Key, Flight>,
    tickets: u64,
}

struct Kept {
    fields: Arc<Fields>,
    until: Instant,
    ticket: u64,
}

struct Flight {
    ticket: u64,
    answer: watch::Receiver<Option<Answer>>,
}

impl Cache {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, state: Mutex::default() }
    }

    /// The secret from memory, or as `fetch` gives it; whoever asks while it is on its way gets
    /// the same answer.
    pub(super) async fn get<F>(self: &Arc<Self>, key: &Key, fetch: F) -> Answer
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut answer = {
            let mut state = self.state.lock();
            let now = Instant::now();
            if let Some(kept) = state.kept.get(key).filter(|kept| kept.until > now) {
                return Ok(Arc::clone(&kept.fields));
            }
            match state.flights.get(key) {
                Some(flight) => flight.answer.clone(),
                None => {
                    let (tell, answer) = watch::channel(None);
                    state.tickets += 1;
                    let ticket = state.tickets;
                    state.flights.insert(key.clone(), Flight { ticket, answer: answer.clone() });
                    let (cache, key) = (Arc::clone(self), key.clone());
                    // A task of its own: it ends even when everybody who asked has gone.
                    tokio::spawn(async move {
                        let landing = Landing { cache: &cache, key: &key, ticket };
                        let fetched = fetch.await;
                        landing.land(&fetched);
                        tell.send_replace(Some(fetched));
                        cache.forget_in_time(key, ticket).await;
                    });
                    answer
                }
            }
        };
        let landed = answer.wait_for(Option::is_some).await.ok().and_then(|landed| (*landed).clone());
        landed.unwrap_or_else(|| {
            Err(PluginError::new(Failed::Faulty, "The reader of the secret crashed: please report it"))
        })
    }

    /// Forgets a secret in every version; what is on its way counts for those who asked already.
    pub(super) fn forget(&self, mount: &str, path: &str) {
        let mut state = self.state.lock();
        state.kept.retain(|key, _| key.mount != mount || key.path != path);
        state.flights.retain(|key, _| key.mount != mount || key.path != path);
    }

    fn keep(&self, key: &Key, fields: &Arc<Fields>, ticket: u64) {
        let mut state = self.state.lock();
        // Forgotten meanwhile: it may be older than what was written.
        if self.ttl.is_zero() || state.flights.get(key).is_none_or(|flight| flight.ticket != ticket) {
            return;
        }
        let now = Instant::now();
        if state.kept.len() >= MOST {
            state.kept.retain(|_, kept| kept.until > now);
        }
        if state.kept.len() >= MOST
            && let Some(oldest) =
                state.kept.iter().min_by_key(|(_, kept)| kept.until).map(|(key, _)| key.clone())
        {
            state.kept.remove(&oldest);
        }
        state.kept.insert(key.clone(), Kept { fields: Arc::clone(fields), until: now + self.ttl, ticket });
    }

    /// Nothing stays in memory past its time, asked for or not.
    async fn forget_in_time(&self, key: Key, ticket: u64) {
        let mine = |state: &State| state.kept.get(&key).filter(|kept| kept.ticket == ticket).map(|k| k.until);
        let until = mine(&self.state.lock());
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
            let mut state = self.state.lock();
            if mine(&state).is_some() {
                state.kept.remove(&key);
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.state.lock().kept.len()
    }
}

/// Takes the flight off the list, also when the fetch panics.
struct Landing<'a> {
    cache: &'a Cache,
    key: &'a Key,
    ticket: u64,
}

impl Landing<'_> {
    fn land(self, fetched: &Answer) {
        if let Ok(fields) = fetched {
            self.cache.keep(self.key, fields, self.ticket);
        }
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        if state.flights.get(self.key).is_some_and(|flight| flight.ticket == self.ticket) {
            state.flights.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;
    use zeroize::Zeroizing;

    fn key(path: &str) -> Key {
        Key { namespace: None, mount: "kv".into(), path: path.into(), version: None }
    }

    fn fields(password: &str) -> Arc<Fields> {
        Arc::new(Fields([("password".to_owned(), Zeroizing::new(password.to_owned()))].into()))
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_share_one_question_and_its_answer() {
        let cache = Arc::new(Cache::new(Duration::ZERO));
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let ask = |fails: bool| {
            let (cache, asked, gate) = (cache.clone(), asked.clone(), gate.clone());
            tokio::spawn(async move {
                let fetch = async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    if fails { Err(PluginError::new(Failed::Unavailable, "down")) } else { Ok(fields("pw")) }
                };
                cache.get(&key("a"), fetch).await.map(|f| f.0["password"].to_string()).map_err(|e| e.message)
            })
        };
        for (fails, expected) in [(false, Ok("pw".to_owned())), (true, Err("down".to_owned()))] {
            asked.store(0, Ordering::SeqCst);
            let all: Vec<_> = (0..50).map(|_| ask(fails)).collect();
            // Whoever asked first may leave: the others still get the answer.
            tokio::task::yield_now().await;
            all[0].abort();
            gate.add_permits(1);
            for one in all.into_iter().skip(1) {
                assert_eq!(one.await.unwrap(), expected);
            }
            assert_eq!(asked.load(Ordering::SeqCst), 1);
        }
        assert_eq!(cache.len(), 0, "a time of 0 keeps nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn promise_12_secrets_leave_memory_in_time_unasked() {
        let cache = Arc::new(Cache::new(Duration::from_secs(30)));
        let held = fields("pw");
        let weak = Arc::downgrade(&held);
        cache.get(&key("a"), async move { Ok(held) }).await.unwrap();
        assert!(cache.get(&key("a"), async { panic!("from memory") }).await.is_ok());
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert_eq!(cache.len(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((cache.len(), weak.strong_count()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_before_a_write_is_not_kept_after_it() {
        let cache = Arc::new(Cache::new(Duration::from_secs(30)));
        let gate = Arc::new(Semaphore::new(0));
        let early = {
            let (cache, gate) = (cache.clone(), gate.clone());
            tokio::spawn(async move {
                let fetch = async move {
                    gate.acquire().await.unwrap().forget();
                    Ok(fields("old"))
                };
                cache.get(&key("a"), fetch).await.unwrap().0["password"].to_string()
            })
        };
        tokio::task::yield_now().await;
        cache.forget("kv", "a");
        gate.add_permits(1);
        assert_eq!(early.await.unwrap(), "old");
        let now = cache.get(&key("a"), async { Ok(fields("new")) }).await.unwrap();
        assert_eq!(now.0["password"].as_str(), "new");
    }

    #[tokio::test(start_paused = true)]
    async fn promise_10_the_number_of_kept_secrets_is_bounded() {
        let cache = Arc::new(Cache::new(Duration::from_secs(30)));
        for n in 0..MOST + 50 {
            cache.get(&key(&n.to_string()), async { Ok(fields("pw")) }).await.unwrap();
        }
        assert_eq!(cache.len(), MOST);
    }

    #[tokio::test]
    async fn promise_14_a_crash_of_the_reader_is_an_error_and_the_next_one_reads() {
        let cache = Arc::new(Cache::new(Duration::from_secs(30)));
        let crashed = cache.get(&key("a"), async { panic!("a defect") }).await;
        assert_eq!(crashed.err().unwrap().kind, Failed::Faulty);
        assert!(cache.get(&key("a"), async { Ok(fields("pw")) }).await.is_ok());
    }
}
