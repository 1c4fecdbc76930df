//! One file per command.

mod api_resources;
pub(crate) mod apply;
mod cfg;
mod cluster_info;
mod completion;
mod config;
mod cordon;
mod cp;
mod create;
mod create_kinds;
mod delete;
mod describe;
mod drain;
mod edit;
mod exec;
mod explain;
mod get;
mod logs;
mod mark;
mod patch;
mod port_forward;
mod reset;
mod run;
mod scale;
mod version;
mod wait;

use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::session::Session;

/// Carries out a command line.
pub(crate) async fn run(cli: Cli) -> Result<(), Error> {
    let global = &cli.global;
    // These need no cluster.
    match &cli.command {
        Command::Completion(args) => return completion::run(args),
        Command::Config(args) => return config::run(args, global),
        Command::Version(args) => return version::run(args, global).await,
        Command::Explain(args) if explain::needs_no_server(args) => return explain::run(args, None).await,
        _ => {}
    }
    let mut global = global.clone();
    // Bindings have subjects by that name, as upstream's have; the kubeconfig's user is the current one then.
    let subjects = match &cli.command {
        Command::Create(args) if args.is_binding() => std::mem::take(&mut global.user),
        _ => Vec::new(),
    };
    let session = &Session::connect(&global).await?;
    match &cli.command {
        Command::Apply(args) => apply::run(args, session).await,
        Command::Create(args) => create::run(args, &subjects, session).await,
        Command::Get(args) => get::run(args, session).await,
        Command::Describe(args) => describe::run(args, session).await,
        Command::Delete(args) => delete::run(args, session).await,
        Command::Logs(args) => logs::run(args, session).await,
        Command::Exec(args) => exec::run(args, session).await,
        Command::Attach(args) => exec::attach(args, session).await,
        Command::PortForward(args) => port_forward::run(args, session).await,
        Command::Cp(args) => cp::run(args, session).await,
        Command::Run(args) => run::run(args, session).await,
        Command::Scale(args) => scale::run(args, session).await,
        Command::Label(args) => mark::run(args, mark::Marks::Labels, session).await,
        Command::Annotate(args) => mark::run(args, mark::Marks::Annotations, session).await,
        Command::Patch(args) => patch::run(args, session).await,
        Command::Edit(args) => edit::run(args, session).await,
        Command::Wait(args) => wait::run(args, session).await,
        Command::Explain(args) => explain::run(args, Some(session)).await,
        Command::ApiResources(args) => api_resources::run(args, session).await,
        Command::ApiVersions => api_resources::versions(session).await,
        Command::ClusterInfo => cluster_info::run(session).await,
        Command::Cordon(args) => cordon::run(args, cordon::Scheduling::Off, session).await,
        Command::Uncordon(args) => cordon::run(args, cordon::Scheduling::On, session).await,
        Command::Drain(args) => drain::run(args, session).await,
        Command::Cfg(args) => cfg::run(args, session).await,
        Command::Reset(args) => reset::run(args, session).await,
        Command::Completion(_) | Command::Config(_) | Command::Version(_) => Ok(()),
    }
}
