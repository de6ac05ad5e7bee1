//! In a process of its own: other tests open descriptors meanwhile.

use stockade_embedded::facts::MachineFacts;

#[test]
fn probing_leaves_no_process_no_descriptor_and_no_mount() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let children = || std::fs::read_to_string("/proc/thread-self/children").unwrap();
    let first = MachineFacts::probe();
    let before = (descriptors(), mounts(), children());
    assert_eq!(MachineFacts::probe(), first);
    assert_eq!((descriptors(), mounts(), children()), before);
}
