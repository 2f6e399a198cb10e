//! Carries out what a [`Vty`] says, in time: the slow way, taken only when something takes time.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::device::Cut;
use crate::vty::{Op, Reply, Vty};

/// Where bytes go.
pub(crate) trait Sink: Send + 'static {
    /// Sends; false when nobody is there any more.
    fn send(&mut self, bytes: Vec<u8>, error: bool) -> impl Future<Output = bool> + Send;
    /// Ends the session in order.
    fn exit(&mut self, status: u32) -> impl Future<Output = ()> + Send;
}

/// Runs until the client or the device ends it. `first` is what is still to be done, then `left` is fed.
pub(crate) async fn drive(
    mut vty: Vty,
    first: Vec<Op>,
    left: Vec<u8>,
    mut input: mpsc::UnboundedReceiver<Vec<u8>>,
    mut sink: impl Sink,
    cut: Arc<Cut>,
) {
    let mut ops: VecDeque<Op> = first.into();
    let mut waiting: VecDeque<Vec<u8>> = VecDeque::new();
    if !left.is_empty() {
        waiting.push_back(left);
    }
    loop {
        while let Some(op) = ops.pop_front() {
            if cut.done() {
                return;
            }
            match op {
                Op::Out(bytes) => {
                    let split = vty.faults().map_or(0, |f| f.split);
                    if split == 0 {
                        if !sink.send(bytes, false).await {
                            return;
                        }
                    } else {
                        for part in bytes.chunks(split) {
                            if !sink.send(part.to_vec(), false).await {
                                return;
                            }
                            // Lets the transport write this packet before the next one is queued.
                            tokio::task::yield_now().await;
                        }
                    }
                }
                Op::Err(bytes) => {
                    if !sink.send(bytes, true).await {
                        return;
                    }
                }
                Op::Wait(time) => {
                    let until = tokio::time::Instant::now() + time;
                    loop {
                        tokio::select! {
                            () = tokio::time::sleep_until(until) => break,
                            got = input.recv() => match got {
                                Some(bytes) => waiting.push_back(bytes),
                                None => return,
                            },
                        }
                    }
                }
                Op::Rows(count, text) => {
                    let mut chunk = String::with_capacity(34_000);
                    for i in 1..=count {
                        // 64 bytes with the line ending, so that a size is easy to reckon.
                        let head = format!("{i:>8}: {text}");
                        chunk.push_str(&format!("{head:<62.62}\r\n"));
                        if chunk.len() > 32_000 || i == count {
                            if cut.done() || !sink.send(std::mem::take(&mut chunk).into_bytes(), false).await
                            {
                                return;
                            }
                            while let Ok(bytes) = input.try_recv() {
                                waiting.push_back(bytes);
                            }
                            if waiting.iter().any(|b| b.contains(&0x03)) {
                                break;
                            }
                        }
                    }
                }
                Op::Flood => {
                    let block: String = (0..256)
                        .map(|i| {
                            format!("{:>4}: flood flood flood flood flood flood flood flood flood\r\n", i)
                        })
                        .collect();
                    loop {
                        if cut.done() || !sink.send(block.clone().into_bytes(), false).await {
                            return;
                        }
                        match input.try_recv() {
                            // Only Ctrl-C stops it.
                            Ok(bytes) if bytes.contains(&0x03) => {
                                waiting.push_back(vec![0x03]);
                                break;
                            }
                            Err(mpsc::error::TryRecvError::Disconnected) => return,
                            _ => {}
                        }
                    }
                }
                Op::Hang => {
                    while input.recv().await.is_some() {}
                    return;
                }
                Op::Exit(status) => {
                    sink.exit(status).await;
                    return;
                }
                Op::Cut => {
                    cut.now();
                    return;
                }
            }
        }
        let bytes = match waiting.pop_front() {
            Some(bytes) => bytes,
            None => match input.recv().await {
                Some(bytes) => bytes,
                None => return,
            },
        };
        let mut reply = Reply::default();
        let used = vty.feed(&bytes, &mut reply);
        ops.extend(reply.ops);
        if used < bytes.len() {
            waiting.push_front(bytes[used..].to_vec());
        }
    }
}
