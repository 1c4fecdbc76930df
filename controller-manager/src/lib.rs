//! What happens to the cluster: controllers and scheduler.
//!
//! Each part runs under its own identity and meets the others only through objects.

pub mod config;
pub mod controllers;
pub mod scheduler;
pub mod volumes;

use client::{Client, Informers, LeaderElector, LeaderOptions};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{ControllerManagerConfig, Settings};
use controllers::Context;

/// Starts every controller; they end with `shutdown`, and `tasks` joins them.
pub fn start_controllers(
    client: &Client,
    config: &ControllerManagerConfig,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) {
    let context = context(client, shutdown, tasks);
    controllers::replica_set::start(&context);
    controllers::node_addresses::start(&context, config.cluster_cidr);
    controllers::node_lifecycle::start(&context, config.node_monitor_grace_period);
    controllers::taint_eviction::start(&context);
    controllers::pod_garbage::start(&context);
    controllers::namespace::start(&context);
    controllers::service_account::start(&context);
    controllers::root_ca::start(&context, &config.root_ca);
    controllers::certificates::start(&context, config.signing.as_ref());
    controllers::token_cleaner::start(&context);
    controllers::bootstrap_signer::start(&context);
    controllers::garbage_collector::start(&context);
    controllers::persistent_volume::start(&context);
    controllers::hostpath_provisioner::start(&context, config.volumes.clone());
    controllers::volume_expansion::start(&context);
    controllers::volume_protection::start(&context);
    controllers::ephemeral_volume::start(&context);
}

/// Starts the scheduler; it ends with `shutdown`, and `tasks` joins it.
pub fn start_scheduler(client: &Client, shutdown: &CancellationToken, tasks: &TaskTracker) {
    scheduler::start(&context(client, shutdown, tasks));
}

fn context(client: &Client, shutdown: &CancellationToken, tasks: &TaskTracker) -> Context {
    Context {
        client: client.clone(),
        informers: Informers::new(client.clone(), shutdown.clone(), tasks.clone()),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
    }
}

/// Runs controllers and scheduler until `shutdown`, or until the leader lease is lost.
///
/// # Errors
/// If the server's configuration cannot be used, or the lease was lost.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = Client::from_kubeconfig(Some(&settings.kubeconfig), None).await?;
    let scheduler = Client::from_kubeconfig(Some(&settings.scheduler_kubeconfig), None).await?;
    let tasks = TaskTracker::new();
    let acting = shutdown.child_token();
    if settings.leader_elect {
        let identity = format!("{}_{}", hostname()?, std::process::id());
        let mut elector =
            LeaderElector::new(client.clone(), LeaderOptions::new("kube-controller-manager", &identity));
        if !elector.acquire(&shutdown).await {
            return Ok(());
        }
        let (acting, shutdown) = (acting.clone(), shutdown.clone());
        tasks.spawn(async move {
            elector.hold(&shutdown).await;
            // The lease is lost: nothing may be done any more, and a fresh start tries for it again.
            acting.cancel();
        });
    }
    start_controllers(&client, &settings.controllers, &acting, &tasks);
    start_scheduler(&scheduler, &acting, &tasks);
    acting.cancelled().await;
    tasks.close();
    tasks.wait().await;
    anyhow::ensure!(shutdown.is_cancelled(), "the leader lease was lost");
    Ok(())
}

fn hostname() -> anyhow::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}
