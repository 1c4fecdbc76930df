//! The table: what people type, and what kubectl's documentation and source say that it answers.
//!
//! Where versions differ, `says_before(22, …)` holds the words of everything older than 1.22. Age, uid, resource
//! version and times are the only things left open.

use super::step::{Step, run};

/// All of them, in the order in which a client runs them.
pub(super) fn steps() -> Vec<Step> {
    [
        namespace(),
        configmaps(),
        refusals(),
        kinds_from_flags(),
        output_formats(),
        patches(),
        labels_and_annotations(),
        editing(),
        applying(),
        several(),
        other_kinds(),
        invalid(),
        discovery(),
        pods(),
        replica_sets(),
        goodbye(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn namespace() -> Vec<Step> {
    vec![
        run("create namespace {ns}").says("namespace/{ns} created\n"),
        run("create namespace {ns}")
            .fails("Error from server (AlreadyExists): namespaces \"{ns}\" already exists\n"),
        run("get namespace {ns}").says("NAME{*}STATUS   AGE\n{ns}{*}Active   {*}s\n"),
        run("get namespace {ns} -o name").says("namespace/{ns}\n"),
        run("get namespace nothere")
            .fails("Error from server (NotFound): namespaces \"nothere\" not found\n"),
    ]
}

fn configmaps() -> Vec<Step> {
    vec![
        run("create configmap plain --from-literal=colour=green --from-literal=size=9")
            .says("configmap/plain created\n"),
        run("create configmap plain --from-literal=colour=green")
            .fails("error: failed to create configmap: configmaps \"plain\" already exists\n")
            .warns_before(21, "Error from server (AlreadyExists): configmaps \"plain\" already exists\n"),
        run("get configmap plain").says("NAME    DATA   AGE\nplain   2      {*}s\n"),
        run("get cm/plain --no-headers").says("plain   2     {*}s\n"),
        run("get configmap nothere")
            .fails("Error from server (NotFound): configmaps \"nothere\" not found\n"),
        run("get nosuchkind").fails("error: the server doesn't have a resource type \"nosuchkind\"\n"),
        run("get pods").warns("No resources found in {ns} namespace.\n"),
        run("get pods -o name"),
        // Of one key: upstream's prints a Go map as it comes, in another order each time.
        run("create configmap single --from-literal=colour=green").says("configmap/single created\n"),
        run("describe configmap single")
            .says(
                "Name:         single\nNamespace:    {ns}\nLabels:       <none>\nAnnotations:  <none>\n\nData\n====\n\
                 colour:\n----\ngreen\n\n\nBinaryData\n====\n\nEvents:  <none>\n",
            )
            .says_before(
                21,
                "Name:         single\nNamespace:    {ns}\nLabels:       <none>\nAnnotations:  <none>\n\nData\n====\n\
                 colour:\n----\ngreen\nEvents:  <none>\n",
            ),
        run("delete configmap single")
            .says("configmap \"single\" deleted from {ns} namespace\n")
            .says_before(34, "configmap \"single\" deleted\n"),
        run("describe configmap nothere")
            .fails("Error from server (NotFound): configmaps \"nothere\" not found\n"),
    ]
}

fn output_formats() -> Vec<Step> {
    vec![
        run("get configmap plain -o name").says("configmap/plain\n"),
        run("get cm plain -o yaml")
            .says(
                "apiVersion: v1\ndata:\n  colour: green\n  size: \"9\"\nkind: ConfigMap\nmetadata:\n\
                 \x20 creationTimestamp: \"{*}Z\"\n  name: plain\n  namespace: {ns}\n  resourceVersion: \"{*}\"\n  uid: {*}\n",
            )
            // Until 1.21, managed fields were shown without being asked for.
            .says_before(
                21,
                "apiVersion: v1\ndata:\n  colour: green\n  size: \"9\"\nkind: ConfigMap\nmetadata:\n\
                 \x20 creationTimestamp: \"{*}Z\"\n  managedFields:\n  - apiVersion: v1\n    fieldsType: FieldsV1\n\
                 \x20   fieldsV1:\n      f:data:\n        .: {}\n        f:colour: {}\n        f:size: {}\n\
                 \x20   manager: kubectl-create\n    operation: Update\n    time: \"{*}Z\"\n\
                 \x20 name: plain\n  namespace: {ns}\n  resourceVersion: \"{*}\"\n  uid: {*}\n",
            ),
        run("get cm plain -o json").since(21).says(
            "{\n    \"apiVersion\": \"v1\",\n    \"data\": {\n        \"colour\": \"green\",\n        \"size\": \"9\"\n    },\n\
             \x20   \"kind\": \"ConfigMap\",\n    \"metadata\": {\n        \"creationTimestamp\": \"{*}Z\",\n\
             \x20       \"name\": \"plain\",\n        \"namespace\": \"{ns}\",\n        \"resourceVersion\": \"{*}\",\n\
             \x20       \"uid\": \"{*}\"\n    }\n}\n",
        ),
        run("get cm plain -o jsonpath={.data.colour}").says("green"),
        run(r#"get cm plain -o 'jsonpath={.metadata.name}: {.data.size}{"\n"}'"#).says("plain: 9\n"),
        run("get cm plain -o custom-columns=NAME:.metadata.name,COLOUR:.data.colour,NONE:.data.none")
            .says("NAME    COLOUR   NONE\nplain   green    <none>\n"),
        run("get cm --field-selector metadata.name=plain -o name").says("configmap/plain\n"),
    ]
}

fn patches() -> Vec<Step> {
    vec![
        run(r#"patch configmap plain -p {"data":{"colour":"blue"}}"#).says("configmap/plain patched\n"),
        run(r#"patch configmap plain -p {"data":{"colour":"blue"}}"#)
            .says("configmap/plain patched (no change)\n"),
        run(r#"patch configmap plain --type=merge -p {"data":{"size":null}}"#)
            .says("configmap/plain patched\n"),
        run(r#"patch configmap plain --type=json -p [{"op":"add","path":"/data/shape","value":"round"}]"#)
            .says("configmap/plain patched\n"),
        run(r#"patch configmap plain --type=json -p [{"op":"test","path":"/data/shape","value":"flat"}]"#)
            .fails("The request is invalid: the server rejected our request due to an error in our request\n")
            .warns_before(21, "The request is invalid\n"),
        run("get cm plain -o jsonpath={.data}").says("{\"colour\":\"blue\",\"shape\":\"round\"}"),
        run(r#"patch configmap nothere -p {"data":{"colour":"blue"}}"#)
            .fails("Error from server (NotFound): configmaps \"nothere\" not found\n"),
    ]
}

fn labels_and_annotations() -> Vec<Step> {
    vec![
        run("label configmap plain tier=front").says("configmap/plain labeled\n"),
        run("get cm -l tier=front --show-labels")
            .says("NAME    DATA   AGE{*}LABELS\nplain   2      {*}s{*}tier=front\n"),
        run("get cm -l tier=front -L tier").says("NAME    DATA   AGE{*}TIER\nplain   2      {*}s{*}front\n"),
        run("get cm -l 'tier in (front,back),tier!=back' -o name").says("configmap/plain\n"),
        run("get cm -l tier=back").warns("No resources found in {ns} namespace.\n"),
        run("label configmap plain tier=back")
            .fails("error: 'tier' already has a value (front), and --overwrite is false\n"),
        run("label configmap plain tier=back --overwrite").says("configmap/plain labeled\n"),
        run("label configmap plain tier-")
            .says("configmap/plain unlabeled\n")
            .says_before(22, "configmap/plain labeled\n"),
        run("label configmap nothere tier=front")
            .fails("Error from server (NotFound): configmaps \"nothere\" not found\n"),
        run("annotate configmap plain note=hello").says("configmap/plain annotated\n"),
        run("annotate configmap plain note=other").fails(
            "error: --overwrite is false but found the following declared annotation(s): \
             'note' already has a value (hello)\n",
        ),
        run("annotate configmap plain note=other --overwrite").says("configmap/plain annotated\n"),
        run("get cm plain -o jsonpath={.metadata.annotations.note}").says("other"),
        run("annotate configmap plain note-").says("configmap/plain annotated\n"),
    ]
}

fn editing() -> Vec<Step> {
    vec![
        run("edit cm plain").edited_by("sed -i s/round/square/").says("configmap/plain edited\n"),
        run("get cm plain -o jsonpath={.data.shape}").says("square"),
        run("edit cm plain").edited_by("true").warns("Edit cancelled, no changes made.\n"),
    ]
}

fn applying() -> Vec<Step> {
    const FIRST: &str =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata:\n  a: '1'\n  b: '1'\n";
    const SECOND: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata:\n  a: '2'\n";
    vec![
        run("apply -f - --dry-run=client").reads(FIRST).says("configmap/applied created (dry run)\n"),
        run("apply -f - --dry-run=server").reads(FIRST).says("configmap/applied created (server dry run)\n"),
        run("get cm applied").fails("Error from server (NotFound): configmaps \"applied\" not found\n"),
        run("apply -f -").reads(FIRST).says("configmap/applied created\n"),
        run("apply -f -").reads(FIRST).says("configmap/applied unchanged\n"),
        run("apply -f -").reads(SECOND).says("configmap/applied configured\n"),
        run("get cm applied -o jsonpath={.data}").says("{\"a\":\"2\"}"),
        run(r"get cm applied -o jsonpath={.metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration}").says(
            "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":\
             {\"annotations\":{},\"name\":\"applied\",\"namespace\":\"{ns}\"}}\n",
        ),
        run("apply -f -")
            .reads("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: plain\ndata:\n  colour: red\n")
            .says("configmap/plain configured\n")
            .warns(
                "Warning: resource configmaps/plain is missing the kubectl.kubernetes.io/last-applied-configuration \
                 annotation which is required by kubectl apply. kubectl apply should only be used on resources \
                 created declaratively by either kubectl create --save-config or kubectl apply. The missing \
                 annotation will be patched automatically.\n",
            ),
        run("delete -f -")
            .reads(SECOND)
            .says("configmap \"applied\" deleted from {ns} namespace\n")
            .says_before(34, "configmap \"applied\" deleted\n"),
        run("delete -f -").reads(SECOND).fails(
            "Error from server (NotFound): error when deleting \"STDIN\": configmaps \"applied\" not found\n",
        ),
        run("delete cm plain")
            .says("configmap \"plain\" deleted from {ns} namespace\n")
            .says_before(34, "configmap \"plain\" deleted\n"),
        run("delete cm plain").fails("Error from server (NotFound): configmaps \"plain\" not found\n"),
        run("delete cm plain --ignore-not-found"),
    ]
}

fn several() -> Vec<Step> {
    const PAIR: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: one, labels: {set: pair}}
data: {order: b}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: two, labels: {set: pair}}
data: {order: a}
";
    vec![
        run("create -f -").reads(PAIR).says("configmap/one created\nconfigmap/two created\n"),
        run("create -f -").reads(PAIR).fails(
            "Error from server (AlreadyExists): error when creating \"STDIN\": configmaps \"one\" already exists\n\
             Error from server (AlreadyExists): error when creating \"STDIN\": configmaps \"two\" already exists\n",
        ),
        run("get cm -l set=pair").says("NAME   DATA   AGE\none    1      {*}s\ntwo    1      {*}s\n"),
        run("get cm -l set=pair -o custom-columns=NAME:.metadata.name --sort-by=.data.order --no-headers")
            .says("two\none\n"),
        run("get cm -l set=pair -o jsonpath={.items[*].metadata.name}").says("one two"),
        run("get cm one two -o name").says("configmap/one\nconfigmap/two\n"),
        run("get cm one nothere -o name")
            .says("configmap/one\n")
            .fails("Error from server (NotFound): configmaps \"nothere\" not found\n"),
        run("delete cm -l set=pair")
            .says(
                "configmap \"one\" deleted from {ns} namespace\nconfigmap \"two\" deleted from {ns} namespace\n",
            )
            .says_before(34, "configmap \"one\" deleted\nconfigmap \"two\" deleted\n"),
        run("create -f -")
            .reads("apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: some-}\n")
            .says("configmap/some-{*} created\n"),
    ]
}

fn other_kinds() -> Vec<Step> {
    vec![
        run("create secret generic key --from-literal=word=secret").says("secret/key created\n"),
        run("get secret key").says("NAME   TYPE     DATA   AGE\nkey    Opaque   1      {*}s\n"),
        run("get secret key -o jsonpath={.data.word}").says("c2VjcmV0"),
        run("describe secret key").says(
            "Name:         key\nNamespace:    {ns}\nLabels:       <none>\nAnnotations:  <none>\n\n\
             Type:  Opaque\n\nData\n====\nword:  6 bytes\n",
        ),
        run("create serviceaccount builder").says("serviceaccount/builder created\n"),
        run("get sa builder").says("NAME      AGE\nbuilder   {*}s\n"),
    ]
}

/// A pod in which two fields do not exist.
const UNKNOWN_FIELDS: &str = "apiVersion: v1
kind: Pod
metadata: {name: unknown}
spec:
  containerz: []
  containers:
  - name: main
    image: minik8s/busybox:quickstart
    imagee: other
";

/// Lines that make no sense, and what scripts match on.
fn refusals() -> Vec<Step> {
    vec![
        run("get cm --bogus").fails("error: unknown flag: --bogus\nSee 'kubectl get --help' for usage.\n").since(33),
        run("get cm -x")
            .fails("error: unknown shorthand flag: 'x' in -x\nSee 'kubectl get --help' for usage.\n")
            .since(33),
        run("create configmap")
            .fails(
                "error: exactly one NAME is required, got 0\n\
                 See 'kubectl create configmap -h' for help and examples\n",
            )
            .since(25),
        run("create deployment d").fails("error: required flag(s) \"image\" not set\n").since(33),
        run("create cm x --dry-run=bogus")
            .fails("error: Invalid dry-run value (bogus). Must be \"none\", \"server\", or \"client\".\n")
            .since(25),
        run("patch cm plain --type=bogus -p {}")
            .fails("error: --type must be one of [json merge strategic], not \"bogus\"\n")
            .since(25),
        run("patch cm plain")
            .fails("error: must specify --patch or --patch-file containing the contents of the patch\n")
            .since(25),
        run("get cm -o custom-columns=")
            .fails("error: custom-columns format specified but no custom columns given\n")
            .since(25),
        run("get cm -o jsonpath-file=/no/file")
            .fails("error: error reading --template /no/file, open /no/file: no such file or directory\n")
            .since(25),
        run("get pods -l 'app in (web'")
            .fails(
                "Error from server (BadRequest): Unable to find \"/v1, Resource=pods\" that match label selector \
                 \"app in (web\", field selector \"\": unable to parse requirement: found '', expected: ',' or ')'\n",
            )
            .since(25),
        run("get nosuch.group.io").fails("error: the server doesn't have a resource type \"nosuch\"\n").since(25),
        run("get cm --output-watch-events")
            .fails("error: --output-watch-events option can only be used with --watch or --watch-only\n")
            .since(25),
        run("label cm plain a=b a-")
            .fails("error: can not both modify and remove a label in the same command\n")
            .since(25),
        run("annotate cm plain").fails("error: at least one annotation update is required\n").since(25),
        run("delete cm -l no=such").says("No resources found\n").since(25),
        run("get pods --context=nope").fails("error: context \"nope\" does not exist\n").since(25),
        run("get pods --user=nope").fails("error: auth info \"nope\" does not exist\n").since(25),
        run("get pods --kubeconfig=/no/file")
            .fails("error: stat /no/file: no such file or directory\n")
            .since(25),
        // The certificate of the kubeconfig counts before a token.
        run("get pods --token=bogus").warns("No resources found in {ns} namespace.\n").since(25),
        run("get pods --request-timeout=10s").warns("No resources found in {ns} namespace.\n").since(25),
    ]
}

/// What `create` makes of flags alone.
fn kinds_from_flags() -> Vec<Step> {
    vec![
        run("create service clusterip s --tcp=80:8080 --dry-run=client -o jsonpath={.spec.ports[0]}")
            .says("{\"name\":\"80-8080\",\"port\":80,\"protocol\":\"TCP\",\"targetPort\":8080}")
            .since(25),
        run("create job j --image=x --dry-run=client -o name").says("job.batch/j\n").since(25),
        run("create cronjob c --image=x --schedule=@hourly --dry-run=client -o \
             jsonpath={.spec.jobTemplate.spec.template.spec.restartPolicy}")
            .says("OnFailure")
            .since(25),
        run("create secret docker-registry r --docker-server=a --docker-username=b --docker-password=c")
            .says("secret/r created\n")
            .since(25),
        run("get secret r -o jsonpath={.type}").says("kubernetes.io/dockerconfigjson").since(25),
        run("delete secret r").says("secret \"r\" deleted from {ns} namespace\n").since(36),
        run("delete secret r --ignore-not-found --wait=false")
            .says_before(36, "secret \"r\" deleted{*}\n")
            .since(25),
        run("create rolebinding rb --role=r --user=u --group=g --dry-run=client -o jsonpath={.subjects[*].name}")
            .says("u g")
            .since(25),
        run("create priorityclass pc --value=5 --dry-run=client -o jsonpath={.value}").says("5").since(25),
        run("create quota q --hard=pods=9 --dry-run=client -o jsonpath={.spec.hard.pods}").says("9").since(25),
        run("create pdb p --selector=a=b --min-available=1 --dry-run=client -o jsonpath={.spec.minAvailable}")
            .says("1")
            .since(25),
    ]
}

fn invalid() -> Vec<Step> {
    const OLD_UNKNOWN: &str = "error: error validating \"STDIN\": error validating data: \
        [ValidationError(Pod.spec.containers[0]): unknown field \"imagee\" in io.k8s.api.core.v1.Container, \
        ValidationError(Pod.spec): unknown field \"containerz\" in io.k8s.api.core.v1.PodSpec]; \
        if you choose to ignore these errors, turn validation off with --validate=false\n";
    const UNKNOWN: &str = "Error from server (BadRequest): error when creating \"STDIN\": \
        Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: \
        unknown field \"spec.containers[0].imagee\", unknown field \"spec.containerz\"\n";
    const WARNINGS: &str = "Warning: unknown field \"spec.containers[0].imagee\"\n\
        Warning: unknown field \"spec.containerz\"\n";
    vec![
        // Before 1.25 the client checked against OpenAPI v2, since then the server does.
        run("create -f -").reads(UNKNOWN_FIELDS).fails(UNKNOWN).warns_before(25, OLD_UNKNOWN),
        run("apply -f -").reads(UNKNOWN_FIELDS).fails(UNKNOWN).warns_before(25, OLD_UNKNOWN),
        run("create -f - --validate=strict --dry-run=server").since(25).reads(UNKNOWN_FIELDS).fails(UNKNOWN),
        run("create -f - --validate=warn --dry-run=server")
            .since(25)
            .reads(UNKNOWN_FIELDS)
            .says("pod/unknown created (server dry run)\n")
            .warns(WARNINGS),
        // Old clients say nothing about it to the server, which then warns.
        run("create -f - --validate=false --dry-run=server")
            .reads(UNKNOWN_FIELDS)
            .says("pod/unknown created (server dry run)\n")
            .warns_before(25, WARNINGS),
        run("create -f -")
            .reads("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: word}\n")
            .fails(
                "Error from server (BadRequest): error when creating \"STDIN\": Pod in version \"v1\" cannot be \
                 handled as a Pod: json: cannot unmarshal string into Go struct field PodSpec.spec.containers of \
                 type []v1.Container\n",
            )
            .warns_before(
                25,
                "error: error validating \"STDIN\": error validating data: ValidationError(Pod.spec.containers): \
                 invalid type for io.k8s.api.core.v1.PodSpec.containers: got \"string\", expected \"array\"; \
                 if you choose to ignore these errors, turn validation off with --validate=false\n",
            ),
        run("create -f -")
            .reads(
                "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  restartPolicy: Sometimes\n\
                 \x20 containers: [{name: c, image: x, ports: [{containerPort: 99999}]}]\n",
            )
            .fails(
                "The Pod \"x\" is invalid: \n\
                 * spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive\n\
                 * spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"\n",
            ),
        run("create configmap Bad_Name").fails(
            "error: failed to create configmap: ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \
             \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
             '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
             validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')\n",
        )
        .warns_before(
            21,
            "The ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \
             \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
             '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
             validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')\n",
        ),
        run("create -f -")
            .reads("apiVersion: nosuch.example.com/v1\nkind: Thing\nmetadata: {name: x}\n")
            .fails(
                "error: resource mapping not found for name: \"x\" namespace: \"\" from \"STDIN\": \
                 no matches for kind \"Thing\" in version \"nosuch.example.com/v1\"\nensure CRDs are installed first\n",
            )
            .warns_before(
                24,
                "error: unable to recognize \"STDIN\": no matches for kind \"Thing\" in version \"nosuch.example.com/v1\"\n",
            ),
        run("create -f -").reads("kind: ConfigMap\nmetadata: {name: x}\n").fails(
            "error: error validating \"STDIN\": error validating data: apiVersion not set; \
             if you choose to ignore these errors, turn validation off with --validate=false\n",
        ),
    ]
}

fn discovery() -> Vec<Step> {
    vec![
        run("api-resources --api-group=apps").says(
            "NAME                  SHORTNAMES   APIVERSION   NAMESPACED   KIND\n\
             controllerrevisions                apps/v1      true         ControllerRevision\n\
             daemonsets            ds           apps/v1      true         DaemonSet\n\
             deployments           deploy       apps/v1      true         Deployment\n\
             replicasets           rs           apps/v1      true         ReplicaSet\n\
             statefulsets          sts          apps/v1      true         StatefulSet\n",
        ),
        run("api-resources --namespaced=false --api-group=storage.k8s.io -o name").says(
            "csidrivers.storage.k8s.io\ncsinodes.storage.k8s.io\nstorageclasses.storage.k8s.io\n\
             volumeattachments.storage.k8s.io\nvolumeattributesclasses.storage.k8s.io\n",
        ),
        run("api-versions").says("{lines}\napps/v1\n{lines}\nrbac.authorization.k8s.io/v1\n{lines}\nv1\n"),
        run("get --raw /readyz").says("ok"),
        run("explain pod.spec").since(27).says(
            "KIND:       Pod\nVERSION:    v1\n\nFIELD: spec <PodSpec>\n\n\nDESCRIPTION:\n\
             \x20   Specification of the desired behavior of the pod. {*}\n{lines}\nFIELDS:\n{lines}\n\
             \x20 containers\t<[]Container> -required-\n{lines}\n  nodeSelector\t<map[string]string>\n{lines}\n\
             \x20 restartPolicy\t<string>\n{lines}\n",
        ),
        run("explain replicaset.spec.replicas").since(27).says(
            "GROUP:      apps\nKIND:       ReplicaSet\nVERSION:    v1\n\nFIELD: replicas <integer>\n\n\nDESCRIPTION:\n{lines}\n",
        ),
        run("explain pod.nosuch")
            .since(27)
            // Upstream has begun to print by then.
            .says("{lines}\n")
            .fails("error: field \"nosuch\" does not exist\n"),
    ]
}

fn pods() -> Vec<Step> {
    const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: hello
  labels: {app: hello}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: minik8s/busybox:quickstart
    command: [sh, -c, echo one; echo two; exec sleep 3600]
";
    vec![
        run("apply -f -").reads(POD).says("pod/hello created\n"),
        run("wait --for=condition=Ready pod/hello --timeout=120s").says("pod/hello condition met\n"),
        run("get pods").says("NAME    READY   STATUS    RESTARTS   AGE\nhello   1/1     Running   0          {*}s\n"),
        run("get pods -o wide").says(
            "NAME    READY   STATUS    RESTARTS   AGE{*}IP{*}NODE{*}NOMINATED NODE   READINESS GATES\n\
             hello   1/1     Running   0          {*}10.{*}test-{*}<none>           <none>\n",
        ),
        // Docker copies a container's output a moment after it was written.
        run("logs hello --follow").until("two"),
        run("logs hello").says("one\ntwo\n"),
        run("logs hello --tail=1").says("two\n"),
        run("logs pod/hello -c main --timestamps").says("20{*}Z one\n20{*}Z two\n"),
        run("logs -l app=hello").says("one\ntwo\n"),
        run("logs hello -c nothere") // Newer ones go on to say which there are.
            .fails("error: container nothere is not valid for pod hello{*}\n"),
        run("logs nothere")
            .fails("error: error from server (NotFound): pods \"nothere\" not found in namespace \"{ns}\"\n")
            .warns_before(29, "Error from server (NotFound): pods \"nothere\" not found\n"),
        // Older clients exec over SPDY, newer ones over WebSockets.
        run("exec hello -- echo a b").says("a b\n"),
        run("exec hello -- sh -c 'echo out; echo err >&2; exit 3'")
            .says("out\n")
            .warns("err\ncommand terminated with exit code 3\n")
            .exits(3),
        run("exec -i hello -- cat").reads("piped\n").says("piped\n"),
        run("exec nothere -- true")
            .fails("Error from server (NotFound): pods \"nothere\" not found\n"),
        // Events are sent when there is time for it.
        run("get events --watch --field-selector involvedObject.name=hello").until("{*}Started{*}pod/hello{*}"),
        run("describe pod hello").says(
            "Name:{*}hello\nNamespace:{*}{ns}\n{lines}\nNode:{*}test-{*}/{*}\n{lines}\nLabels:{*}app=hello\n\
             Annotations:{*}\nStatus:{*}Running\nIP:{*}10.{*}\nIPs:\n  IP:  10.{*}\nContainers:\n  main:\n\
             \x20   Container ID:  docker://{*}\n    Image:         minik8s/busybox:quickstart\n{lines}\n\
             \x20   Command:\n      sh\n      -c\n      echo one; echo two; exec sleep 3600\n\
             \x20   State:          Running\n      Started:      {*}\n    Ready:          True\n    Restart Count:  0\n\
             {lines}\nQoS Class:{*}BestEffort\n{lines}\nEvents:\n{lines}\n\
             \x20 Normal  Scheduled  {*}  default-scheduler  Successfully assigned {ns}/hello to test-{*}\n\
             {lines}\n  Normal  Started    {*}  kubelet            {*}\n",
        ),
        run("delete pod hello")
            .says("pod \"hello\" deleted from {ns} namespace\n")
            .says_before(34, "pod \"hello\" deleted\n"),
        run("get pod hello").fails("Error from server (NotFound): pods \"hello\" not found\n"),
        run("run once --image=minik8s/busybox:quickstart --restart=Never -- echo three four")
            .says("pod/once created\n"),
        run("wait pod/once --for=jsonpath={.status.phase}=Succeeded --timeout=120s")
            .since(23)
            .says("pod/once condition met\n"),
        run("get pod once")
            .since(23)
            .says("NAME   READY   STATUS      RESTARTS   AGE\nonce   0/1     Completed   0          {*}s\n"),
        run("logs once").since(23).says("three four\n"),
        run("delete pod once --force --grace-period=0")
            .says("pod \"once\" force deleted from {ns} namespace\n")
            .says_before(34, "pod \"once\" force deleted\n")
            .warns(
                "Warning: Immediate deletion does not wait for confirmation that the running resource has been \
                 terminated. The resource may continue to run on the cluster indefinitely.\n",
            )
            .warns_before(
                22,
                "warning: Immediate deletion does not wait for confirmation that the running resource has been \
                 terminated. The resource may continue to run on the cluster indefinitely.\n",
            ),
    ]
}

fn replica_sets() -> Vec<Step> {
    const WEB: &str = "apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web
spec:
  replicas: 0
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: main, image: 'minik8s/busybox:quickstart', command: [sleep, '3600']}
";
    vec![
        run("create -f -").reads(WEB).says("replicaset.apps/web created\n"),
        run("get rs").says("NAME   DESIRED   CURRENT   READY   AGE\nweb    0         0         0       {*}s\n"),
        run("get rs web -o wide").says(
            "NAME   DESIRED   CURRENT   READY   AGE{*}CONTAINERS   IMAGES                       SELECTOR\n\
             web    0         0         0       {*}s{*}   main         minik8s/busybox:quickstart   app=web\n",
        ),
        run("scale rs web --replicas=1").says("replicaset.apps/web scaled\n"),
        run("get replicasets.apps web -o jsonpath={.spec.replicas}").says("1"),
        run("scale rs/web --replicas=2 --current-replicas=5").fails("error: Expected replicas to be 5, was 1\n"),
        run("scale rs nothere --replicas=1")
            .fails("Error from server (NotFound): replicasets.apps \"nothere\" not found\n")
            .warns_before(21, "Error from server (NotFound): replicasets.apps \"nothere\" not found\n")
            .warns_before(34, "error: no objects passed to scale replicasets.apps \"nothere\" not found\n"),
        run("get events --watch --field-selector involvedObject.name=web").until("{*}SuccessfulCreate{*}replicaset/web{*}"),
        run("describe rs web").says(
            "Name:         web\nNamespace:    {ns}\nSelector:     app=web\nLabels:       <none>\n\
             Annotations:  <none>\nReplicas:     {*} current / 1 desired\nPods Status:  {*}\nPod Template:\n\
             \x20 Labels:  app=web\n  Containers:\n   main:\n    Image:      minik8s/busybox:quickstart\n\
             \x20   Port:       <none>\n    Host Port:  <none>\n    Command:\n      sleep\n      3600\n{lines}\nEvents:\n{lines}\n\
             \x20 Normal  SuccessfulCreate  {*}s{*}  replicaset-controller  Created pod: web-{*}\n",
        ),
        run("delete rs web")
            .says("replicaset.apps \"web\" deleted from {ns} namespace\n")
            .says_before(34, "replicaset.apps \"web\" deleted\n"),
    ]
}

fn goodbye() -> Vec<Step> {
    vec![
        run("delete namespace {ns}")
            .says("namespace \"{ns}\" deleted\n")
            .warns("Warning: deleting cluster-scoped resources, not scoped to the provided namespace\n")
            .warns_before(
                22,
                "warning: deleting cluster-scoped resources, not scoped to the provided namespace\n",
            ),
        run("get namespace {ns}").fails("Error from server (NotFound): namespaces \"{ns}\" not found\n"),
    ]
}
