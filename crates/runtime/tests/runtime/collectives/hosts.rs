//! Two hosts on this machine: network namespaces with a cable between them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

/// The network between the hosts; what they have is their own business.
const NETWORK: &str = "10.77.13.0/24";

/// The hosts, until they are dropped.
pub(crate) struct Hosts {
    names: [String; 2],
}

fn ip(arguments: &[&str]) -> bool {
    let status = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Hosts {
    /// Two hosts, `None` if this user may not make them, or the system cannot.
    pub(crate) fn new() -> Option<Hosts> {
        let names = ["a", "b"].map(|host| format!("cerium-{}-{host}", process::id()));
        if !ip(&["netns", "add", &names[0]]) {
            return None;
        }
        let hosts = Hosts { names };
        let [a, b] = &hosts.names;
        let laid = ip(&["netns", "add", b])
            && ip(&["link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b]);
        let up = |(index, name): (usize, &String)| {
            let address = format!("{}/24", Hosts::address(index));
            ip(&["-n", name, "link", "set", "lo", "up"])
                && ip(&["-n", name, "link", "set", "cable", "up"])
                && ip(&["-n", name, "addr", "add", &address, "dev", "cable"])
        };
        (laid && hosts.names.iter().enumerate().all(up)).then_some(hosts)
    }

    fn address(host: usize) -> String {
        format!("10.77.13.{}", host + 1)
    }

    /// Bytes that the first host has sent to the second.
    pub(crate) fn sent(&self) -> u64 {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[0], "cat", "/sys/class/net/cable/statistics/tx_bytes"]);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    }

    /// `mpirun` on the first host, with two slots on each; `folder` takes the files that this needs.
    pub(crate) fn mpirun(&self, folder: &Path, variables: &[(&str, &str)]) -> Command {
        let [a, b] = &self.names;
        let (first, second) = (Hosts::address(0), Hosts::address(1));
        let list = folder.join("hosts");
        fs::write(&list, format!("{first} slots=2\n{second} slots=2\n")).unwrap();
        // What `mpirun` calls as it would call ssh: a host, then a command.
        let shell = script(
            folder.join("shell"),
            &format!(
                "#!/bin/sh\nhost=$1; shift\ncase $host in {first}) name={a};; *) name={b};; esac\n\
                 exec ip netns exec $name unshare --uts sh -c \"hostname $name; $*\"\n"
            ),
        );
        let start = script(folder.join("start"), &format!("#!/bin/sh\nhostname {a}\nexec mpirun \"$@\"\n"));
        let mut command = Command::new("timeout");
        command.args(["120", "ip", "netns", "exec", a, "unshare", "--uts"]).arg(start);
        command.args(["--allow-run-as-root", "-np", "4", "--hostfile"]).arg(list);
        command.args(["--mca", "plm_rsh_agent"]).arg(shell).args(["--mca", "btl", "tcp,self"]);
        command.args(["--mca", "btl_tcp_if_include", NETWORK, "--mca", "oob_tcp_if_include", NETWORK]);
        for (variable, value) in variables {
            command.env(variable, value).args(["-x", variable]);
        }
        command
    }
}

fn script(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.names.iter().for_each(|name| {
            ip(&["netns", "del", name]);
        });
    }
}
