//! A runtime whose operations are counted and timed: it does what the one inside does.
//!
//! Operations carry upstream's names (`pkg/kubelet/kuberuntime/instrumented_services.go`). Making and starting
//! a container is one call here and counts as `start_container`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kubelet_runtime::{
    AccountFiles, Capabilities, ContainerResources, ContainerSpec, ContainerView, EventStream, ExecOutput,
    ExecSession, ExecSpec, ImageView, LogOptions, LogStream, PodConnection, PodIdentity, PodRuntime, PodView,
    RegistryAuth, RuntimeError, RuntimeFacts, SandboxSpec, SandboxView, usage::RuntimeUsage,
};
use tokio::time::Instant;

use super::Measures;

/// [`PodRuntime`] that is measured.
pub(crate) struct MeasuredRuntime {
    inner: Arc<dyn PodRuntime>,
    measures: Arc<Measures>,
}

impl MeasuredRuntime {
    /// Around a runtime.
    pub(crate) fn new(inner: Arc<dyn PodRuntime>, measures: Arc<Measures>) -> Self {
        Self { inner, measures }
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, RuntimeError>>,
    ) -> Result<T, RuntimeError> {
        let begun = Instant::now();
        let result = call.await;
        self.measures.operation(operation, begun.elapsed(), result.is_ok());
        result
    }
}

#[async_trait::async_trait]
impl PodRuntime for MeasuredRuntime {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn version(&self) -> Result<String, RuntimeError> {
        self.timed("version", self.inner.version()).await
    }

    async fn facts(&self) -> Result<RuntimeFacts, RuntimeError> {
        self.timed("status", self.inner.facts()).await
    }

    async fn list(&self) -> Result<Vec<PodView>, RuntimeError> {
        self.timed("list_podsandbox", self.inner.list()).await
    }

    async fn pod(&self, uid: &str) -> Result<Option<PodView>, RuntimeError> {
        self.timed("podsandbox_status", self.inner.pod(uid)).await
    }

    async fn events(&self) -> Result<EventStream, RuntimeError> {
        self.inner.events().await
    }

    async fn ensure_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxView, RuntimeError> {
        self.timed("run_podsandbox", self.inner.ensure_sandbox(spec)).await
    }

    async fn run_container(
        &self,
        pod: &PodIdentity,
        spec: &ContainerSpec,
    ) -> Result<ContainerView, RuntimeError> {
        self.timed("start_container", self.inner.run_container(pod, spec)).await
    }

    async fn stop_container(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        self.timed("stop_container", self.inner.stop_container(uid, name, attempt, grace)).await
    }

    async fn remove_container(&self, uid: &str, name: &str, attempt: u32) -> Result<(), RuntimeError> {
        self.timed("remove_container", self.inner.remove_container(uid, name, attempt)).await
    }

    async fn stop_sandbox(&self, uid: &str, attempt: u32) -> Result<(), RuntimeError> {
        self.timed("stop_podsandbox", self.inner.stop_sandbox(uid, attempt)).await
    }

    async fn remove_pod(&self, uid: &str) -> Result<(), RuntimeError> {
        self.timed("remove_podsandbox", self.inner.remove_pod(uid)).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageView>, RuntimeError> {
        self.timed("image_status", self.inner.image(reference)).await
    }

    async fn images(&self) -> Result<Vec<ImageView>, RuntimeError> {
        self.timed("list_images", self.inner.images()).await
    }

    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<ImageView, RuntimeError> {
        self.timed("pull_image", self.inner.pull(reference, auth)).await
    }

    async fn logs(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        options: &LogOptions,
    ) -> Result<LogStream, RuntimeError> {
        self.inner.logs(uid, name, attempt, options).await
    }

    async fn exec_sync(
        &self,
        uid: &str,
        name: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        self.timed("exec_sync", self.inner.exec_sync(uid, name, command, timeout)).await
    }

    async fn exec(&self, uid: &str, name: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        self.timed("exec", self.inner.exec(uid, name, spec)).await
    }

    async fn attach(&self, uid: &str, name: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        self.timed("attach", self.inner.attach(uid, name, spec)).await
    }

    async fn remove_sandbox(&self, uid: &str, attempt: u32) -> Result<(), RuntimeError> {
        self.timed("remove_podsandbox", self.inner.remove_sandbox(uid, attempt)).await
    }

    async fn resize_container(
        &self,
        uid: &str,
        name: &str,
        attempt: u32,
        resources: &ContainerResources,
    ) -> Result<(), RuntimeError> {
        self.timed("update_container", self.inner.resize_container(uid, name, attempt, resources)).await
    }

    async fn remove_image(&self, id: &str) -> Result<(), RuntimeError> {
        self.timed("remove_image", self.inner.remove_image(id)).await
    }

    async fn image_root(&self) -> Result<Option<PathBuf>, RuntimeError> {
        self.timed("image_fs_info", self.inner.image_root()).await
    }

    async fn image_accounts(&self, id: &str) -> Result<AccountFiles, RuntimeError> {
        self.timed("image_accounts", self.inner.image_accounts(id)).await
    }

    async fn unpack_image(&self, id: &str, into: &Path) -> Result<(), RuntimeError> {
        self.timed("unpack_image", self.inner.unpack_image(id, into)).await
    }

    async fn port_forward(&self, uid: &str, port: u16) -> Result<PodConnection, RuntimeError> {
        self.timed("port_forward", self.inner.port_forward(uid, port)).await
    }

    async fn usage(&self) -> Result<RuntimeUsage, RuntimeError> {
        self.timed("list_podsandbox_stats", self.inner.usage()).await
    }
}
