//! Push subscriptions at work: a runner for each that is not paused, which is a member of its queue group and POSTs what it
//! is handed.

mod message;
mod runner;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::shared::Shared;
use super::tasks;
use crate::base::GroupName;
use crate::catalog::PushEntry;
use runner::Runner;

/// A runner, or one that is on its way out.
struct Running {
    /// What it runs; `None` if it was told to end.
    entry: Option<PushEntry>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Runs until the server stops, and then until all calls under way have come to their end.
pub async fn run(shared: Arc<Shared>) {
    let mut changed = shared.broker.pushes_changed();
    let mut running: BTreeMap<GroupName, Running> = BTreeMap::new();
    loop {
        changed.borrow_and_update();
        let mut wanted: BTreeMap<GroupName, PushEntry> = BTreeMap::new();
        for entry in shared.broker.pushes() {
            // Its metrics are there from the beginning.
            drop(shared.broker.push_stats(&entry.name));
            if entry.paused.is_none() {
                wanted.insert(entry.name.clone(), entry);
            }
        }
        for (name, runner) in &mut running {
            if runner.entry.is_some() && runner.entry.as_ref() != wanted.get(name) {
                runner.entry = None;
                runner.stop.send_replace(true);
            }
        }
        running.retain(|_, runner| runner.entry.is_some() || !runner.task.is_finished());
        for (name, entry) in wanted {
            if running.get(&name).is_some_and(|runner| runner.entry.is_some()) {
                continue;
            }
            let before = running.remove(&name).map(|runner| runner.task);
            running.insert(name, start(&shared, entry, before));
        }
        tokio::select! {
            () = shared.stopped() => break,
            _ = changed.changed() => {}
        }
    }
    for runner in running.values() {
        runner.stop.send_replace(true);
    }
    for runner in running.into_values() {
        // How it ended is in the log.
        let _ended = runner.task.await;
    }
}

/// Starts one, behind the one before it.
fn start(shared: &Arc<Shared>, entry: PushEntry, before: Option<JoinHandle<()>>) -> Running {
    let (stop, stopping) = watch::channel(false);
    let runner = Runner::new(Arc::clone(shared), entry.clone());
    let task = tasks::spawn_lasting("push", async move {
        if let Some(before) = before {
            let _ended = before.await;
        }
        runner.run(stopping).await;
    });
    Running { entry: Some(entry), stop, task }
}
