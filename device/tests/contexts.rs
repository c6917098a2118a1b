//! Subpackages by relative URL, for those who have their package open.

mod scene;

use colibri_device::{Context, DeviceConfig, DeviceError};
use colibri_package::url::RelativePackageUrl;
use scene::{HOST, Scene, nobody, url};

fn name(name: &str) -> RelativePackageUrl {
    name.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_leads_to_subpackages_of_an_open_package_only() {
    let scene = Scene::new();
    let deep = scene.build("deep", &[("file", b"deep")], &[]);
    let inner = scene.build("inner", &[("file", b"inner")], &[&deep]);
    let outer = scene.build("outer", &[("file", b"outer")], &[&inner]);
    scene.publish(&[&outer]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let opened = device.resolve_open(&url("outer"), "test", nobody()).await.unwrap();
    let context = device.context(&opened.lease);
    let subpackage = device.open_subpackage(&name("inner"), &context, "test").await.unwrap();
    assert_eq!(subpackage.package(), inner.hash);
    // From one to the next, and not past one.
    let next = device.context(&subpackage);
    assert_eq!(device.open_subpackage(&name("deep"), &next, "test").await.unwrap().package(), deep.hash);
    let error = device.open_subpackage(&name("deep"), &context, "test").await.unwrap_err();
    assert_eq!((error.kind(), error.zx_status()), ("PackageNotFound", "NOT_FOUND"), "{error}");

    let mut forged = context.to_bytes();
    forged[..32].copy_from_slice(deep.hash.as_bytes());
    let forged = Context::from_bytes(&forged).unwrap();
    let (other, _other_store) = scene.device("other", DeviceConfig::default(), scene.config(&cluster, HOST));
    for (device, context) in [(&device, &forged), (&other, &context)] {
        let error = device.open_subpackage(&name("inner"), context, "test").await.unwrap_err();
        assert_eq!((error.kind(), error.zx_status()), ("InvalidContext", "INVALID_ARGS"), "{error}");
    }

    // The subpackage stays open by itself; the package's context ends with it.
    drop(opened);
    let error = device.open_subpackage(&name("inner"), &context, "test").await.unwrap_err();
    assert!(matches!(error, DeviceError::SuperpackageClosed(closed) if closed == outer.hash), "{error}");
    assert_eq!(error.kind(), "Internal");
    device.open_subpackage(&name("deep"), &next, "test").await.unwrap();
    cluster.stop().await;
}
