// What programs written with client-go do, against the cluster of $KUBECONFIG: typed, dynamic, metadata and scale
// clients, discovery with a mapper, informers, leader election, the event recorder, retries and pagination.
// Prints one line for each thing that worked, and ends at the first that did not.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/tools/record"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/client-go/util/retry"
)

const namespace = "client-go"

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// sources is what this program was built from; the linker sets it.
var sources string

func main() {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println(sources)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	check(err)
	config.QPS, config.Burst = 1000, 1000
	client := kubernetes.NewForConfigOrDie(config)
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	_, err = client.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{})
	check(err)

	typed(ctx, client)
	protobuf(ctx, config)
	refusals(ctx, client)
	dynamicAndMetadata(ctx, config)
	mapped := discovered(config, client)
	informed(ctx, config, client)
	paged(ctx, client)
	scaled(ctx, config, client, mapped)
	reviewed(ctx, client)
	led(ctx, client)
	recorded(ctx, client)
	deleted(ctx, client)
	fmt.Println("done")
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"set": "go"}},
		Data:       map[string]string{"a": "1"},
	}
}

func typed(ctx context.Context, client kubernetes.Interface) {
	maps := client.CoreV1().ConfigMaps(namespace)
	created, err := maps.Create(ctx, configMap("typed"), metav1.CreateOptions{FieldValidation: "Strict"})
	check(err)
	stale := created.DeepCopy()
	created.Data["b"] = "2"
	updated, err := maps.Update(ctx, created, metav1.UpdateOptions{})
	check(err)
	again, err := maps.Update(ctx, updated.DeepCopy(), metav1.UpdateOptions{})
	check(err)
	expect(again.ResourceVersion == updated.ResourceVersion, "an unchanged object was written")
	stale.Data["c"] = "3"
	_, err = maps.Update(ctx, stale, metav1.UpdateOptions{})
	expect(apierrors.IsConflict(err), "a stale update: %v", err)
	check(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := maps.Get(ctx, "typed", metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Data["c"] = "3"
		_, err = maps.Update(ctx, current, metav1.UpdateOptions{})
		return err
	}))
	patched, err := maps.Patch(ctx, "typed", types.StrategicMergePatchType, []byte(`{"data":{"a":null}}`), metav1.PatchOptions{})
	check(err)
	expect(fmt.Sprint(patched.Data) == "map[b:2 c:3]", "patched: %v", patched.Data)
	expect(len(patched.ManagedFields) > 0 && patched.ManagedFields[0].Manager == "client-go", "managers: %v", patched.ManagedFields)
	fmt.Println("typed")
}

// protobuf is what controller-runtime and upstream's components ask for.
func protobuf(ctx context.Context, config *rest.Config) {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client := kubernetes.NewForConfigOrDie(config)
	maps := client.CoreV1().ConfigMaps(namespace)
	_, err := maps.Create(ctx, configMap("protobuf"), metav1.CreateOptions{})
	check(err)
	list, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "set=go"})
	check(err)
	expect(len(list.Items) == 2, "listed %d", len(list.Items))
	seconds := int64(10)
	stream, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, TimeoutSeconds: &seconds})
	check(err)
	defer stream.Stop()
	check(maps.Delete(ctx, "protobuf", metav1.DeleteOptions{}))
	event := <-stream.ResultChan()
	expect(event.Type == watch.Deleted, "event: %v", event)
	_, err = maps.Get(ctx, "protobuf", metav1.GetOptions{})
	expect(apierrors.IsNotFound(err), "after the deletion: %v", err)
	fmt.Println("protobuf")
}

func refusals(ctx context.Context, client kubernetes.Interface) {
	maps := client.CoreV1().ConfigMaps(namespace)
	_, err := maps.Create(ctx, configMap("typed"), metav1.CreateOptions{})
	expect(apierrors.IsAlreadyExists(err), "a taken name: %v", err)
	_, err = maps.Create(ctx, configMap("No_Name"), metav1.CreateOptions{})
	expect(apierrors.IsInvalid(err), "a bad name: %v", err)
	expect(apierrors.HasStatusCause(err, metav1.CauseTypeFieldValueInvalid), "its cause: %v", err)
	_, err = client.CoreV1().ConfigMaps("absent").Create(ctx, configMap("x"), metav1.CreateOptions{})
	expect(apierrors.HasStatusCause(err, "") == false && apierrors.IsNotFound(err), "no namespace: %v", err)
	uid := types.UID("another")
	err = maps.Delete(ctx, "typed", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	expect(apierrors.IsConflict(err), "a precondition: %v", err)
	_, err = maps.List(ctx, metav1.ListOptions{ResourceVersion: "1", ResourceVersionMatch: metav1.ResourceVersionMatchExact, Limit: 1})
	expect(err == nil || apierrors.IsResourceExpired(err), "an old version: %v", err)
	fmt.Println("refusals")
}

func dynamicAndMetadata(ctx context.Context, config *rest.Config) {
	client := dynamic.NewForConfigOrDie(config).Resource(configMaps).Namespace(namespace)
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"generateName": "dynamic-", "labels": map[string]any{"set": "dynamic"}},
		"data":     map[string]any{"a": "1"},
	}}
	created, err := client.Create(ctx, object, metav1.CreateOptions{})
	check(err)
	expect(strings.HasPrefix(created.GetName(), "dynamic-"), "a generated name: %s", created.GetName())
	_, err = client.Patch(ctx, created.GetName(), types.JSONPatchType, []byte(`[{"op":"replace","path":"/data/a","value":"2"}]`), metav1.PatchOptions{})
	check(err)
	partial := metadata.NewForConfigOrDie(config).Resource(configMaps).Namespace(namespace)
	list, err := partial.List(ctx, metav1.ListOptions{LabelSelector: "set=dynamic"})
	check(err)
	expect(len(list.Items) == 1 && list.Items[0].Name == created.GetName(), "metadata: %v", list.Items)
	check(client.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "set=dynamic"}))
	rest, err := client.List(ctx, metav1.ListOptions{LabelSelector: "set=dynamic"})
	check(err)
	expect(len(rest.Items) == 0, "left: %v", rest.Items)
	fmt.Println("dynamic and metadata")
}

func discovered(config *rest.Config, client kubernetes.Interface) *restmapper.DeferredDiscoveryRESTMapper {
	cached := memory.NewMemCacheClient(client.Discovery())
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached)
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"})
	check(err)
	expect(mapping.Resource.Resource == "deployments" && mapping.Scope.Name() == "namespace", "mapping: %v", mapping)
	expander := restmapper.NewShortcutExpander(mapper, cached, nil)
	resource, err := expander.ResourceFor(schema.GroupVersionResource{Resource: "deploy"})
	check(err)
	expect(resource.Resource == "deployments", "a short name: %v", resource)
	legacy := discovery.NewDiscoveryClientForConfigOrDie(config)
	legacy.UseLegacyDiscovery = true
	_, resources, err := legacy.ServerGroupsAndResources()
	check(err)
	_, aggregated, err := client.Discovery().ServerGroupsAndResources()
	check(err)
	expect(names(resources) == names(aggregated), "both forms of discovery:\n%s\n%s", names(resources), names(aggregated))
	version, err := client.Discovery().ServerVersion()
	check(err)
	expect(version.Major == "1" && version.Minor == "36", "version: %v", version)
	_, err = client.Discovery().OpenAPIV3().Paths()
	check(err)
	_, err = client.Discovery().OpenAPISchema()
	check(err)
	fmt.Println("discovery")
	return mapper
}

func names(lists []*metav1.APIResourceList) string {
	var all []string
	for _, list := range lists {
		for _, resource := range list.APIResources {
			verbs := append([]string{}, resource.Verbs...)
			sort.Strings(verbs)
			all = append(all, fmt.Sprint(list.GroupVersion, "/", resource.Name, resource.Kind, resource.Namespaced, resource.ShortNames, resource.Categories, verbs))
		}
	}
	sort.Strings(all)
	return strings.Join(all, "\n")
}

// informed follows ConfigMaps through shared informers, typed and dynamic: client-go lists by a watch
// (sendInitialEvents) and takes the bookmark for the end.
func informed(ctx context.Context, config *rest.Config, client kubernetes.Interface) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen sync.Map
	changed := make(chan struct{}, 100)
	note := func(what string) func(any) {
		return func(object any) {
			if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			name, _ := cache.MetaNamespaceKeyFunc(object)
			seen.Store(what+" "+name, true)
			changed <- struct{}{}
		}
	}
	handler := func(kind string) cache.ResourceEventHandler {
		return cache.ResourceEventHandlerFuncs{
			AddFunc:    note(kind + " added"),
			UpdateFunc: func(_, object any) { note(kind + " changed")(object) },
			DeleteFunc: note(kind + " deleted"),
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = "set=go" }))
	informer := factory.Core().V1().ConfigMaps()
	_, err := informer.Informer().AddEventHandler(handler("typed"))
	check(err)
	dynamics := dynamicinformer.NewFilteredDynamicSharedInformerFactory(dynamic.NewForConfigOrDie(config), 0, namespace, nil)
	_, err = dynamics.ForResource(configMaps).Informer().AddEventHandler(handler("dynamic"))
	check(err)
	factory.Start(ctx.Done())
	dynamics.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		expect(synced, "%v did not sync", kind)
	}
	dynamics.WaitForCacheSync(ctx.Done())
	_, err = informer.Lister().ConfigMaps(namespace).Get("typed")
	check(err)

	maps := client.CoreV1().ConfigMaps(namespace)
	object, err := maps.Create(ctx, configMap("informed"), metav1.CreateOptions{})
	check(err)
	object.Data["a"] = "2"
	object, err = maps.Update(ctx, object, metav1.UpdateOptions{})
	check(err)
	// What no longer matches is gone for who selects.
	object.Labels = nil
	_, err = maps.Update(ctx, object, metav1.UpdateOptions{})
	check(err)
	check(maps.Delete(ctx, "informed", metav1.DeleteOptions{}))
	key := " " + namespace + "/informed"
	wanted := []string{"typed added", "typed changed", "typed deleted", "dynamic added", "dynamic changed", "dynamic deleted"}
	for {
		missing := []string{}
		for _, what := range wanted {
			if _, ok := seen.Load(what + key); !ok {
				missing = append(missing, what)
			}
		}
		if len(missing) == 0 {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			panic(fmt.Sprintf("never seen: %v", missing))
		}
	}
	cancel()
	factory.Shutdown()
	dynamics.Shutdown()
	fmt.Println("informers")
}

func paged(ctx context.Context, client kubernetes.Interface) {
	maps := client.CoreV1().ConfigMaps(namespace)
	for at := range 7 {
		_, err := maps.Create(ctx, configMap(fmt.Sprintf("page-%d", at)), metav1.CreateOptions{})
		check(err)
	}
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return maps.List(ctx, options)
	})
	pages.PageSize = 3
	var found []string
	check(pages.EachListItem(ctx, metav1.ListOptions{LabelSelector: "set=go"}, func(object runtime.Object) error {
		found = append(found, object.(*corev1.ConfigMap).Name)
		return nil
	}))
	expect(len(found) == 8 && sort.StringsAreSorted(found), "pages: %v", found)
	first, err := maps.List(ctx, metav1.ListOptions{Limit: 3})
	check(err)
	expect(first.RemainingItemCount != nil && *first.RemainingItemCount >= 5, "remaining: %v", first.RemainingItemCount)
	fmt.Println("pages")
}

func scaled(ctx context.Context, config *rest.Config, client kubernetes.Interface, mapper *restmapper.DeferredDiscoveryRESTMapper) {
	replicas := int32(0)
	labels := map[string]string{"app": "scaled"}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "scaled"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Paused:   true,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}},
			},
		},
	}
	_, err := client.AppsV1().Deployments(namespace).Create(ctx, deployment, metav1.CreateOptions{})
	check(err)
	scales, err := scale.NewForConfig(config, mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(client.Discovery()))
	check(err)
	resource := schema.GroupResource{Group: "apps", Resource: "deployments"}
	current, err := scales.Scales(namespace).Get(ctx, resource, "scaled", metav1.GetOptions{})
	check(err)
	expect(current.Status.Selector == "app=scaled", "selector: %q", current.Status.Selector)
	current.Spec.Replicas = 2
	current, err = scales.Scales(namespace).Update(ctx, resource, current, metav1.UpdateOptions{})
	check(err)
	expect(current.Spec.Replicas == 2, "replicas: %d", current.Spec.Replicas)
	got, err := client.AppsV1().Deployments(namespace).Get(ctx, "scaled", metav1.GetOptions{})
	check(err)
	expect(*got.Spec.Replicas == 2 && got.Generation == 2, "scaled: %d, generation %d", *got.Spec.Replicas, got.Generation)
	background := metav1.DeletePropagationBackground
	check(client.AppsV1().Deployments(namespace).Delete(ctx, "scaled", metav1.DeleteOptions{PropagationPolicy: &background}))
	fmt.Println("scale")
}

func reviewed(ctx context.Context, client kubernetes.Interface) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "reviewed"}}
	_, err := client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	check(err)
	request := &authenticationv1.TokenRequest{}
	token, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "reviewed", request, metav1.CreateOptions{})
	check(err)
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token}}
	review, err = client.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
	check(err)
	user := "system:serviceaccount:" + namespace + ":reviewed"
	expect(review.Status.Authenticated && review.Status.User.Username == user, "token review: %v", review.Status)
	access := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               user,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Resource: "secrets", Namespace: namespace},
	}}
	access, err = client.AuthorizationV1().SubjectAccessReviews().Create(ctx, access, metav1.CreateOptions{})
	check(err)
	expect(!access.Status.Allowed, "access: %v", access.Status)
	fmt.Println("reviews")
}

// led has two candidates: the first leads and gives up, the second follows.
func led(ctx context.Context, client kubernetes.Interface) {
	var mutex sync.Mutex
	var leaders []string
	candidate := func(ctx context.Context, name string, started func()) {
		lock, err := resourcelock.New(resourcelock.LeasesResourceLock, namespace, "leader", client.CoreV1(), client.CoordinationV1(),
			resourcelock.ResourceLockConfig{Identity: name})
		check(err)
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true, Name: name,
			LeaseDuration: 2 * time.Second, RenewDeadline: time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {
					mutex.Lock()
					leaders = append(leaders, name)
					mutex.Unlock()
					started()
				},
				OnStoppedLeading: func() {},
			},
		})
	}
	first, stopFirst := context.WithCancel(ctx)
	second, stopSecond := context.WithCancel(ctx)
	defer stopSecond()
	leading := make(chan struct{})
	var group sync.WaitGroup
	group.Add(2)
	go func() {
		defer group.Done()
		candidate(first, "first", func() { close(leading) })
	}()
	<-leading
	go func() {
		defer group.Done()
		candidate(second, "second", stopSecond)
	}()
	stopFirst()
	group.Wait()
	expect(strings.Join(leaders, ",") == "first,second", "leaders: %v", leaders)
	lease, err := client.CoordinationV1().Leases(namespace).Get(ctx, "leader", metav1.GetOptions{})
	check(err)
	expect(*lease.Spec.LeaseTransitions >= 1, "lease: %v", lease.Spec)
	fmt.Println("leader election")
}

func recorded(ctx context.Context, client kubernetes.Interface) {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(namespace)})
	recorder := broadcaster.NewRecorder(clientscheme.Scheme, corev1.EventSource{Component: "client-go"})
	object, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, "typed", metav1.GetOptions{})
	check(err)
	object.Kind, object.APIVersion = "ConfigMap", "v1"
	counted := func(event watch.Event) (bool, error) {
		found, ok := event.Object.(*corev1.Event)
		return ok && found.Reason == "Tried" && found.Count == 2, nil
	}
	recorder.Event(object, corev1.EventTypeNormal, "Tried", "once more")
	recorder.Event(object, corev1.EventTypeNormal, "Tried", "once more")
	list := cache.ToListWatcherWithWatchListSemantics(cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "events", namespace, fields.Everything()), client)
	_, err = watchtools.UntilWithSync(ctx, list, &corev1.Event{}, nil, counted)
	check(err)
	broadcaster.Shutdown()
	fmt.Println("events")
}

// deleted waits until the namespace has been emptied and is gone.
func deleted(ctx context.Context, client kubernetes.Interface) {
	spaces := client.CoreV1().Namespaces()
	current, err := spaces.Get(ctx, namespace, metav1.GetOptions{})
	check(err)
	check(spaces.Delete(ctx, namespace, metav1.DeleteOptions{}))
	stream, err := watchtools.NewRetryWatcherWithContext(ctx, current.ResourceVersion, &cache.ListWatch{
		WatchFunc: func(options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = "metadata.name=" + namespace
			return spaces.Watch(ctx, options)
		},
	})
	check(err)
	defer stream.Stop()
	for event := range stream.ResultChan() {
		if event.Type == watch.Deleted {
			fmt.Println("namespace deleted")
			return
		}
		expect(event.Type != watch.Error, "the watch failed: %v", event.Object)
	}
	panic(errors.New("the watch ended before the namespace did"))
}
