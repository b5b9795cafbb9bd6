//! A certificate authority of the stories, by openssl.

use std::{fs, path::PathBuf, process::Command};

use super::web::visitor_tries_to_get;

/// A folder with nothing in it.
pub fn empty_folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A certificate authority of the tests.
pub struct Authority {
    pub folder: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let authority = Self { folder: empty_folder(name) };
        fs::write(authority.folder.join("index"), "").unwrap();
        // With a number a list is one of version 2.
        fs::write(authority.folder.join("number"), "01\n").unwrap();
        fs::write(
            authority.folder.join("settings"),
            "[ca]\ndefault_ca = here\n[here]\ndatabase = index\ncrlnumber = number\nnew_certs_dir = .\ncertificate = ca.crt\nprivate_key = ca.key\n\
             rand_serial = yes\ndefault_md = sha256\npolicy = any\ncopy_extensions = copy\nunique_subject = no\ndefault_crl_days = 1\n[any]\ncommonName = supplied\n\
             [req]\ndistinguished_name = nobody\n[nobody]\n",
        )
        .unwrap();
        authority.openssl("req -config settings -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=agents -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.crt");
        authority
    }

    pub fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.folder).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Issues a certificate for this name, valid between these times (`YYYYMMDDHHMMSSZ`).
    pub fn issues(&self, name: &str, from: &str, until: &str) {
        self.openssl(&format!("req -config settings -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -addext subjectAltName=DNS:{name} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!("ca -config settings -batch -notext -startdate {from} -enddate {until} -in {name}.csr -out {name}.crt"));
    }

    /// The list of what it revoked, for so many seconds.
    pub fn revoked(&self, seconds: u32) -> String {
        self.openssl(&format!("ca -config settings -gencrl -crlsec {seconds} -out ca.crl"));
        self.read("ca.crl")
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap()
    }

    /// The status that an agent with this certificate gets; `None`: no connection at all.
    pub fn agent_gets(&self, name: &str, url: &str) -> Option<u16> {
        let file = |end: &str| self.folder.join(format!("{name}.{end}")).to_str().unwrap().to_owned();
        visitor_tries_to_get(url, &["--cert", &file("crt"), "--key", &file("key")]).ok().map(|answer| answer.status)
    }
}
