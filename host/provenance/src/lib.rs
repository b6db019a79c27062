//! Where a component comes from, and who vouches for it.
//!
//! A chain may name a component in an OCI registry, by the digest of its manifest. What comes over the network is bounded
//! in size and time and believed only as far as its digests go. A host may demand signatures; they are of the kind that
//! cosign makes with a key, so that either program verifies what the other signed.
//!
//! - [`artifact`]: how a component lies in a registry: manifest, config, one layer.
//! - [`credentials`]: who we are to a registry.
//! - [`registry`]: the requests, and their bounds.
//! - [`signature`]: keys, signatures, and the payload that is signed.
//! - [`evidence`]: the signatures that were found for a component, in the form in which they are kept.
//! - [`trust`]: which signatures are needed, and whether they are there.
//!
//! The server and `policyctl` share this crate. It knows no database, no settings files and no running policies.

pub mod artifact;
pub mod credentials;
pub mod evidence;
pub mod registry;
pub mod signature;
pub mod trust;

pub use credentials::Credentials;
pub use evidence::{Evidence, ManifestSignature};
pub use registry::{FoundSignatures, Pulled, Registry, RegistryError, RegistryOptions};
pub use signature::{Algorithm, KeyError, PrivateKey, PublicKey};
pub use trust::{TrustPolicy, TrustedKey, Untrusted};
