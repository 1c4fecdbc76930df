//! Who and what a container may be, out of the two security contexts.
//!
//! The container's own context wins over the pod's, field by field.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SELinuxOptions, SeccompProfile};
use kubelet_runtime::ContainerSecurity;

use super::spec;

/// The user a container is to run as, if one is asked for.
#[must_use]
pub fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref();
    let pods = spec(pod).security_context.as_ref();
    own.and_then(|context| context.run_as_user).or_else(|| pods.and_then(|context| context.run_as_user))
}

/// The seccomp profile that holds for a container: its own, or the pod's.
fn seccomp<'a>(pod: &'a Pod, container: &'a Container) -> Option<&'a SeccompProfile> {
    let own = container.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    own.or_else(|| spec(pod).security_context.as_ref()?.seccomp_profile.as_ref())
}

/// The file of a container's seccomp profile below the kubelet's `seccomp` directory, if it names one.
#[must_use]
pub fn localhost_seccomp<'a>(pod: &'a Pod, container: &'a Container) -> Option<&'a str> {
    let profile = seccomp(pod, container).filter(|profile| profile.type_ == "Localhost")?;
    profile.localhost_profile.as_deref()
}

fn app_armor<'a>(pod: &'a Pod, container: &'a Container) -> Option<&'a AppArmorProfile> {
    let own = container.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    own.or_else(|| spec(pod).security_context.as_ref()?.app_armor_profile.as_ref())
}

/// Whether a pod must not run where there is no AppArmor (`isRequired` of upstream's `pkg/security/apparmor`).
#[must_use]
pub fn needs_app_armor(pod: &Pod) -> bool {
    let confines =
        |profile: Option<&AppArmorProfile>| profile.is_some_and(|profile| profile.type_ != "Unconfined");
    let pods = spec(pod).security_context.as_ref();
    confines(pods.and_then(|context| context.app_armor_profile.as_ref()))
        || super::all_containers(pod).any(|container| {
            let own = container.security_context.as_ref();
            confines(own.and_then(|context| context.app_armor_profile.as_ref()))
        })
}

/// Checks `runAsNonRoot` against the user asked for and the image's. The texts are upstream's
/// (`pkg/kubelet/kuberuntime/security_context.go`).
pub fn verify_non_root(pod: &Pod, container: &Container, image_user: &str) -> Result<(), String> {
    let own = container.security_context.as_ref();
    let pods = spec(pod).security_context.as_ref();
    let required = own
        .and_then(|context| context.run_as_non_root)
        .or_else(|| pods.and_then(|context| context.run_as_non_root))
        .unwrap_or_default();
    if !required {
        return Ok(());
    }
    let place = format!("(pod: \"{}\", container: {})", super::described(pod), container.name);
    if let Some(user) = run_as_user(pod, container) {
        if user == 0 {
            return Err(format!("container's runAsUser breaks non-root policy {place}"));
        }
        return Ok(());
    }
    let user = image_user.split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        _ if user.is_empty() => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {place}"
        )),
    }
}

/// SELinux's label in Docker's words; a node without SELinux takes no notice of it, as everywhere.
fn se_linux(label: &SELinuxOptions) -> Vec<String> {
    let parts =
        [("user", &label.user), ("role", &label.role), ("type", &label.type_), ("level", &label.level)];
    let given = parts.iter().filter_map(|(part, value)| Some((part, value.as_deref()?)));
    given
        .filter(|(_, value)| !value.is_empty())
        .map(|(part, value)| format!("label={part}:{value}"))
        .collect()
}

/// The label that a pod's sandbox gets: the pod's own.
#[must_use]
pub fn of_sandbox(pod: &Pod) -> Vec<String> {
    let context = spec(pod).security_context.as_ref();
    context.and_then(|context| context.se_linux_options.as_ref()).map(se_linux).unwrap_or_default()
}

/// The effective security of a container. `image_user` completes a `runAsGroup` without a `runAsUser`.
#[must_use]
pub fn effective(pod: &Pod, container: &Container, image_user: &str) -> ContainerSecurity {
    let own = container.security_context.as_ref();
    let pods = spec(pod).security_context.as_ref();
    let user = run_as_user(pod, container);
    let group = own
        .and_then(|context| context.run_as_group)
        .or_else(|| pods.and_then(|context| context.run_as_group));
    let user = match (user, group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => {
            let name = image_user.split(':').next().unwrap_or_default();
            Some(format!("{}:{group}", if name.is_empty() { "0" } else { name }))
        }
        (None, None) => None,
    };
    let mut groups: Vec<String> = pods
        .and_then(|context| context.supplemental_groups.as_ref())
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    if let Some(group) = pods.and_then(|context| context.fs_group) {
        groups.push(group.to_string());
    }
    let capabilities = own.and_then(|context| context.capabilities.as_ref());
    let privileged = own.and_then(|context| context.privileged).unwrap_or_default();
    let mut options = Vec::new();
    // Without a profile upstream leaves containers unconfined unless SeccompDefault is set; Docker's own
    // default profile is the safer reading, and `Unconfined` asks for its absence by name.
    if seccomp(pod, container).is_some_and(|profile| profile.type_ == "Unconfined") {
        options.push("seccomp=unconfined".to_owned());
    }
    // Without one Docker loads and takes its own where the node has AppArmor.
    match app_armor(pod, container) {
        Some(AppArmorProfile { type_, .. }) if type_ == "Unconfined" => {
            options.push("apparmor=unconfined".to_owned());
        }
        Some(AppArmorProfile { localhost_profile: Some(name), .. }) => {
            options.push(format!("apparmor={name}"))
        }
        _ => {}
    }
    let label = own
        .and_then(|context| context.se_linux_options.as_ref())
        .or_else(|| pods.and_then(|context| context.se_linux_options.as_ref()));
    options.extend(label.into_iter().flat_map(se_linux));
    ContainerSecurity {
        user,
        groups,
        privileged,
        read_only_root: own.and_then(|context| context.read_only_root_filesystem).unwrap_or_default(),
        add_capabilities: capabilities.and_then(|set| set.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities.and_then(|set| set.drop.clone()).unwrap_or_default(),
        no_new_privileges: own.and_then(|context| context.allow_privilege_escalation) == Some(false),
        options,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    #[test]
    fn the_containers_own_context_wins() {
        let pod = pod(json!({
            "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4000]},
            "containers": [{"name": "a", "securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "Unconfined"}}}],
        }));
        let security = effective(&pod, &spec(&pod).containers[0], "");
        assert_eq!(security.user.as_deref(), Some("7:2000"));
        assert_eq!(security.groups, ["4000", "3000"]);
        assert!(security.no_new_privileges);
        assert_eq!(security.drop_capabilities, ["ALL"]);
        assert_eq!(security.options, ["seccomp=unconfined"]);
    }

    #[test]
    fn profiles_of_app_armor() {
        let pod = pod(json!({
            "securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": "strict"}},
            "containers": [{"name": "a"}, {"name": "b", "securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
                {"name": "c", "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}],
        }));
        let options = |index: usize| effective(&pod, &spec(&pod).containers[index], "").options;
        assert_eq!(options(0), ["apparmor=strict"]);
        assert_eq!(options(1), ["apparmor=unconfined"]);
        assert_eq!(options(2), [""; 0]);
    }

    #[test]
    fn labels_of_se_linux() {
        let pod = pod(json!({
            "securityContext": {"seLinuxOptions": {"level": "s0:c0,c1"}},
            "containers": [{"name": "a"}, {"name": "b", "securityContext": {"seLinuxOptions": {"type": "spc_t", "role": ""}}}],
        }));
        let options = |index: usize| effective(&pod, &spec(&pod).containers[index], "").options;
        assert_eq!(options(0), ["label=level:s0:c0,c1"]);
        assert_eq!(options(1), ["label=type:spc_t"]);
        assert_eq!(of_sandbox(&pod), ["label=level:s0:c0,c1"]);
    }

    #[test]
    fn non_root_is_verified() {
        let with = |context| pod(json!({"containers": [{"name": "a", "securityContext": context}]}));
        let check = |pod: &Pod, user| verify_non_root(pod, &spec(pod).containers[0], user);
        let required = with(json!({"runAsNonRoot": true}));
        assert!(
            check(&required, "")
                .unwrap_err()
                .starts_with("container has runAsNonRoot and image will run as root")
        );
        assert!(check(&required, "1000").is_ok());
        assert!(check(&required, "nobody").unwrap_err().contains("non-numeric user (nobody)"));
        assert!(check(&with(json!({"runAsNonRoot": true, "runAsUser": 0})), "1000").is_err());
        assert!(check(&with(json!({"runAsNonRoot": true, "runAsUser": 1})), "").is_ok());
        assert!(check(&with(json!({})), "").is_ok());
    }
}
