//! Which fields of a pod this kubelet honours; everything else refuses the pod by name.
//!
//! A field that would change what a container does or may do must never be ignored silently. So the spec is
//! walked against a list of what is known, and the first other field that says something (is neither null,
//! false, 0 nor empty) is named. The list is data: supporting a field means adding a word here and the code
//! that honours it.

use api_objects::pod_resources::{is_extended, is_huge, is_pod_level};
use serde_json::Value;

/// What is known about an object's fields.
enum Known {
    /// Any value is honoured, or changes nothing on the node.
    Any,
    /// Only these strings.
    OneOf(&'static [&'static str]),
    /// An object with these fields.
    Object(&'static [(&'static str, Known)]),
    /// A list of such objects.
    List(&'static [(&'static str, Known)]),
    /// A map with these keys.
    Keys(&'static Keys),
}

/// Keys of a map: which of them are honoured, and what they are in words.
struct Keys {
    are_known: fn(&str) -> bool,
    #[cfg(test)]
    words: &'static str,
}

use Known::{Any, List, Object, OneOf};

/// Resources of a container.
const RESOURCES: Known = Known::Keys(&Keys {
    are_known: |name| {
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge(name) || is_extended(name)
    },
    #[cfg(test)]
    words: "cpu, memory, ephemeral-storage, hugepages-*, extended resources",
});

/// Resources of a pod as a whole.
const POD_RESOURCES: Known = Known::Keys(&Keys {
    are_known: is_pod_level,
    #[cfg(test)]
    words: "cpu, memory, hugepages-*",
});

const KEY_SELECTOR: &[(&str, Known)] = &[("name", Any), ("key", Any), ("optional", Any)];
const LOCAL_OBJECT: &[(&str, Known)] = &[("name", Any), ("optional", Any)];
const FIELD_REF: &[(&str, Known)] = &[("apiVersion", Any), ("fieldPath", Any)];
const RESOURCE_REF: &[(&str, Known)] = &[("containerName", Any), ("resource", Any), ("divisor", Any)];
const HTTP_GET: &[(&str, Known)] = &[
    ("path", Any),
    ("port", Any),
    ("host", Any),
    ("scheme", OneOf(&["HTTP", "HTTPS"])),
    ("httpHeaders", Any),
];
const EXEC: &[(&str, Known)] = &[("command", Any)];

const PROBE: &[(&str, Known)] = &[
    ("exec", Object(EXEC)),
    ("httpGet", Object(HTTP_GET)),
    ("tcpSocket", Object(&[("port", Any), ("host", Any)])),
    ("grpc", Object(&[("port", Any), ("service", Any)])),
    ("initialDelaySeconds", Any),
    ("timeoutSeconds", Any),
    ("periodSeconds", Any),
    ("successThreshold", Any),
    ("failureThreshold", Any),
    ("terminationGracePeriodSeconds", Any),
];

const HOOK: &[(&str, Known)] =
    &[("exec", Object(EXEC)), ("httpGet", Object(HTTP_GET)), ("sleep", Object(&[("seconds", Any)]))];

const SECCOMP: &[(&str, Known)] =
    &[("type", OneOf(&["RuntimeDefault", "Unconfined", "Localhost"])), ("localhostProfile", Any)];
const APPARMOR: &[(&str, Known)] =
    &[("type", OneOf(&["RuntimeDefault", "Unconfined", "Localhost"])), ("localhostProfile", Any)];

const CONTAINER: &[(&str, Known)] = &[
    ("name", Any),
    ("image", Any),
    ("command", Any),
    ("args", Any),
    ("workingDir", Any),
    (
        "ports",
        List(&[
            ("name", Any),
            ("hostPort", Any),
            ("containerPort", Any),
            ("protocol", OneOf(&["TCP", "UDP", "SCTP"])),
            ("hostIP", Any),
        ]),
    ),
    (
        "envFrom",
        List(&[("prefix", Any), ("configMapRef", Object(LOCAL_OBJECT)), ("secretRef", Object(LOCAL_OBJECT))]),
    ),
    (
        "env",
        List(&[
            ("name", Any),
            ("value", Any),
            (
                "valueFrom",
                Object(&[
                    ("fieldRef", Object(FIELD_REF)),
                    ("resourceFieldRef", Object(RESOURCE_REF)),
                    ("configMapKeyRef", Object(KEY_SELECTOR)),
                    ("secretKeyRef", Object(KEY_SELECTOR)),
                    (
                        "fileKeyRef",
                        Object(&[("volumeName", Any), ("path", Any), ("key", Any), ("optional", Any)]),
                    ),
                ]),
            ),
        ]),
    ),
    ("resources", Object(&[("limits", RESOURCES), ("requests", RESOURCES)])),
    ("resizePolicy", Any),
    ("restartPolicy", OneOf(&["Always", "OnFailure", "Never"])),
    (
        "restartPolicyRules",
        List(&[
            ("action", OneOf(&["Restart", "RestartAllContainers"])),
            ("exitCodes", Object(&[("operator", OneOf(&["In", "NotIn"])), ("values", Any)])),
        ]),
    ),
    (
        "volumeMounts",
        List(&[
            ("name", Any),
            ("readOnly", Any),
            ("recursiveReadOnly", Any),
            ("mountPath", Any),
            ("subPath", Any),
            ("subPathExpr", Any),
            ("mountPropagation", OneOf(&["None", "HostToContainer", "Bidirectional"])),
        ]),
    ),
    ("volumeDevices", List(&[("name", Any), ("devicePath", Any)])),
    ("livenessProbe", Object(PROBE)),
    ("readinessProbe", Object(PROBE)),
    ("startupProbe", Object(PROBE)),
    ("lifecycle", Object(&[("postStart", Object(HOOK)), ("preStop", Object(HOOK)), ("stopSignal", Any)])),
    ("terminationMessagePath", Any),
    ("terminationMessagePolicy", Any),
    ("imagePullPolicy", Any),
    (
        "securityContext",
        Object(&[
            ("capabilities", Object(&[("add", Any), ("drop", Any)])),
            ("privileged", Any),
            ("runAsUser", Any),
            ("runAsGroup", Any),
            ("runAsNonRoot", Any),
            ("readOnlyRootFilesystem", Any),
            ("allowPrivilegeEscalation", Any),
            ("procMount", OneOf(&["Default"])),
            ("seLinuxOptions", Any),
            ("seccompProfile", Object(SECCOMP)),
            ("appArmorProfile", Object(APPARMOR)),
        ]),
    ),
    ("stdin", Any),
    ("stdinOnce", Any),
    ("tty", Any),
];

const ITEMS: &[(&str, Known)] = &[("key", Any), ("path", Any), ("mode", Any)];
const DOWNWARD_ITEMS: &[(&str, Known)] = &[
    ("path", Any),
    ("fieldRef", Object(FIELD_REF)),
    ("resourceFieldRef", Object(RESOURCE_REF)),
    ("mode", Any),
];

const VOLUME: &[(&str, Known)] = &[
    ("name", Any),
    ("hostPath", Any),
    // A medium that is unknown fails the mount by name.
    ("emptyDir", Object(&[("medium", Any), ("sizeLimit", Any)])),
    (
        "secret",
        Object(&[("secretName", Any), ("items", List(ITEMS)), ("defaultMode", Any), ("optional", Any)]),
    ),
    ("configMap", Object(&[("name", Any), ("items", List(ITEMS)), ("defaultMode", Any), ("optional", Any)])),
    ("downwardAPI", Object(&[("items", List(DOWNWARD_ITEMS)), ("defaultMode", Any)])),
    ("persistentVolumeClaim", Object(&[("claimName", Any), ("readOnly", Any)])),
    ("image", Object(&[("reference", Any), ("pullPolicy", Any)])),
    ("csi", Object(&[("driver", Any), ("readOnly", Any), ("volumeAttributes", Any)])),
    // A controller makes the claim out of the template; here only its name counts.
    ("ephemeral", Object(&[("volumeClaimTemplate", Any)])),
    (
        "projected",
        Object(&[
            ("defaultMode", Any),
            (
                "sources",
                List(&[
                    ("secret", Object(&[("name", Any), ("items", List(ITEMS)), ("optional", Any)])),
                    ("configMap", Object(&[("name", Any), ("items", List(ITEMS)), ("optional", Any)])),
                    ("downwardAPI", Object(&[("items", List(DOWNWARD_ITEMS))])),
                    (
                        "serviceAccountToken",
                        Object(&[("audience", Any), ("expirationSeconds", Any), ("path", Any)]),
                    ),
                ]),
            ),
        ]),
    ),
];

const POD: &[(&str, Known)] = &[
    ("volumes", List(VOLUME)),
    ("initContainers", List(CONTAINER)),
    ("containers", List(CONTAINER)),
    // Added to a running pod, which they cannot refuse: each is walked by itself before it starts.
    ("ephemeralContainers", Any),
    ("restartPolicy", Any),
    ("terminationGracePeriodSeconds", Any),
    ("activeDeadlineSeconds", Any),
    ("dnsPolicy", Any),
    ("nodeSelector", Any),
    ("serviceAccountName", Any),
    ("serviceAccount", Any),
    ("automountServiceAccountToken", Any),
    ("nodeName", Any),
    ("hostNetwork", Any),
    ("hostPID", Any),
    ("hostIPC", Any),
    ("shareProcessNamespace", Any),
    (
        "securityContext",
        Object(&[
            ("runAsUser", Any),
            ("runAsGroup", Any),
            ("runAsNonRoot", Any),
            ("supplementalGroups", Any),
            ("supplementalGroupsPolicy", OneOf(&["Merge", "Strict"])),
            ("fsGroup", Any),
            ("fsGroupChangePolicy", Any),
            ("sysctls", Any),
            ("seLinuxOptions", Any),
            // Nothing here is mounted with a label: what there is to change is changed file by file.
            ("seLinuxChangePolicy", Any),
            ("seccompProfile", Object(SECCOMP)),
            ("appArmorProfile", Object(APPARMOR)),
        ]),
    ),
    ("imagePullSecrets", Any),
    ("hostname", Any),
    ("hostnameOverride", Any),
    ("subdomain", Any),
    ("setHostnameAsFQDN", Any),
    ("affinity", Any),
    ("schedulerName", Any),
    ("tolerations", Any),
    ("hostAliases", Any),
    ("priorityClassName", Any),
    ("priority", Any),
    ("dnsConfig", Any),
    ("readinessGates", Any),
    ("enableServiceLinks", Any),
    ("preemptionPolicy", Any),
    ("topologySpreadConstraints", Any),
    ("schedulingGates", Any),
    // `true` is the default and means what we do; `false` asks for a user namespace.
    ("hostUsers", OneOf(&["true"])),
    ("os", Object(&[("name", OneOf(&["linux"]))])),
    ("resources", Object(&[("limits", POD_RESOURCES), ("requests", POD_RESOURCES)])),
    ("runtimeClassName", Any),
    ("overhead", RESOURCES),
];

/// The path of the first field in a pod's spec that is not supported, if there is one.
#[must_use]
pub fn first_unsupported(spec: &Value) -> Option<String> {
    walk(spec, POD, "spec")
}

/// The same of one ephemeral container of that spec.
#[must_use]
pub fn first_unsupported_ephemeral(spec: &Value, name: &str) -> Option<String> {
    let list = spec.get("ephemeralContainers")?.as_array()?;
    let (index, container) = list.iter().enumerate().find(|(_, container)| container["name"] == name)?;
    let mut container = container.clone();
    // The one field that other containers do not have.
    container.as_object_mut()?.remove("targetContainerName");
    walk(&container, CONTAINER, &format!("spec.ephemeralContainers[{index}]"))
}

fn walk(object: &Value, known: &'static [(&'static str, Known)], path: &str) -> Option<String> {
    let fields = object.as_object()?;
    fields.iter().find_map(|(name, value)| {
        let path = format!("{path}.{name}");
        match known.iter().find(|(known, _)| known == name) {
            None => speaks(value).then_some(path),
            Some((_, Any)) => None,
            Some((_, OneOf(values))) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (!value.is_null() && !values.contains(&text.as_str())).then_some(path)
            }
            Some((_, Known::Keys(keys))) => {
                let unknown = value.as_object()?.keys().find(|key| !(keys.are_known)(key))?;
                Some(format!("{path}.{unknown}"))
            }
            Some((_, Object(fields))) => walk(value, fields, &path),
            Some((_, List(fields))) => value
                .as_array()?
                .iter()
                .enumerate()
                .find_map(|(index, item)| walk(item, fields, &format!("{path}[{index}]"))),
        }
    })
}

/// Whether a value says something: the zero values mean the same as absence in the API. An empty object
/// does speak where it stands for a choice (a volume source), so only lists and maps of nothing are silent
/// below known fields; unknown ones always refuse.
fn speaks(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use api_objects::schema::{self, Schema};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_we_honour_passes() {
        let spec = json!({
            "containers": [{"name": "a", "image": "i", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "periodSeconds": 10},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": ""}], "tty": true}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}, {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "hostNetwork": true, "enableServiceLinks": true, "os": {"name": "linux"}, "hostUsers": true,
        });
        assert_eq!(first_unsupported(&spec), None);
    }

    /// Every field of the published schema that refuses a pod, by walking the schema beside the list.
    fn refused(schema: &Schema, known: &[(&str, Known)], path: &str, found: &mut Vec<String>) {
        for (name, _) in known {
            assert!(schema.field(name).is_some(), "{path}.{name} is no field of the API");
        }
        for field in schema.fields() {
            let path = format!("{path}.{}", field.name);
            match known.iter().find(|(name, _)| **name == *field.name) {
                None => found.push(path),
                Some((_, Any)) => {}
                Some((_, OneOf(values))) => {
                    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
                    found.push(format!("{path}: other than {}", quoted.join(", ")));
                }
                Some((_, Known::Keys(keys))) => found.push(format!("{path}: other than {}", keys.words)),
                // The same as of the containers.
                Some(_) if *field.name == *"initContainers" => {}
                Some((_, Object(fields))) => refused(&field.schema, fields, &path, found),
                Some((_, List(fields))) => {
                    let items = field.schema.items().expect("a list must have items");
                    refused(items, fields, &format!("{path}[]"), found);
                }
            }
        }
    }

    /// What the documentation says is refused is what is refused; everything else of the schema is honoured.
    #[test]
    fn every_field_of_the_schema_is_honoured_or_documented_as_refused() {
        let schema = schema::definition("io.k8s.api.core.v1.PodSpec").expect("there must be a pod spec");
        let mut found = Vec::new();
        refused(schema, POD, "spec", &mut found);
        let documentation = include_str!("../../../docs/compatibility.md");
        let block = documentation.split("<!-- pod fields that are refused -->\n```text\n").nth(1);
        let block = block.and_then(|rest| rest.split("```").next()).expect("there must be a list");
        assert_eq!(block.lines().collect::<Vec<_>>(), found, "the list should be:\n{}", found.join("\n"));
    }

    #[test]
    fn what_we_do_not_is_named() {
        for (spec, path) in [
            (json!({"resources": {"limits": {"cpu": "1", "storage": "1"}}}), "spec.resources.limits.storage"),
            (json!({"hostUsers": false}), "spec.hostUsers"),
            (json!({"volumes": [{"name": "a"}, {"name": "v", "nfs": {}}]}), "spec.volumes[1].nfs"),
            (json!({"volumes": [{"name": "v", "rbd": {"image": "i"}}]}), "spec.volumes[0].rbd"),
            (
                json!({"containers": [{"resources": {"limits": {"kubernetes.io/gpu": "1"}}}]}),
                "spec.containers[0].resources.limits.kubernetes.io/gpu",
            ),
            (
                json!({"containers": [{"securityContext": {"appArmorProfile": {"type": "Nowhere"}}}]}),
                "spec.containers[0].securityContext.appArmorProfile.type",
            ),
            (json!({"somethingOfTomorrow": {}}), "spec.somethingOfTomorrow"),
        ] {
            assert_eq!(first_unsupported(&spec).as_deref(), Some(path));
        }
        assert_eq!(first_unsupported(&json!({"somethingOfTomorrow": false})), None);
        let spec = json!({"ephemeralContainers": [{"name": "d", "targetContainerName": "a"}, {"name": "e", "resourcesOfTomorrow": [{}]}]});
        assert_eq!(first_unsupported_ephemeral(&spec, "d"), None);
        let path = "spec.ephemeralContainers[1].resourcesOfTomorrow";
        assert_eq!(first_unsupported_ephemeral(&spec, "e").as_deref(), Some(path));
    }
}
