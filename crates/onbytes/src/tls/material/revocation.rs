//! What is said about certificates after they were issued: lists of revoked ones, and a responder's
//! answer about one.

use rustls::pki_types::CertificateRevocationListDer;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::chain::day;
use super::der::{self, Der};
use super::files::Source;
use super::pem;
use crate::{Error, ErrorKind, Result};

/// The lists in a file: any number of PEM blocks, or one in DER.
pub(super) fn parse_crls(
    data: &[u8],
    source: &Source<'_>,
) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    const NONE: &str = "holds no list of revoked certificates";
    if Der::only_sequence(data).is_some() {
        return Ok(vec![checked(data.to_vec(), source)?]);
    }
    if !pem::is_pem(data) {
        return Err(source.is(format_args!("{NONE}: it is neither PEM nor DER")));
    }
    let text = pem::text(data);
    let blocks = pem::blocks(&text).map_err(|why| source.fails(why))?;
    let lists: Vec<_> = blocks.iter().filter(|block| block.is_crl()).collect();
    if lists.is_empty() {
        let what = blocks.first().map_or_else(String::new, |b| format!(", but {}", b.content()));
        return Err(source.is(format_args!("{NONE}{what}")));
    }
    lists
        .into_iter()
        .map(|list| checked(list.der().map_err(|why| source.fails(why))?, source))
        .collect()
}

/// What the verification would refuse at each handshake is refused now.
fn checked(der: Vec<u8>, source: &Source<'_>) -> Result<CertificateRevocationListDer<'static>> {
    match webpki::OwnedCertRevocationList::from_der(&der) {
        Ok(_) => Ok(der.into()),
        Err(_) if is_version_1(&der) => Err(source.fails(
            "the list is of version 1; make one of version 2, with crl_extensions in openssl's \
             configuration",
        )),
        Err(error) => Err(Error::caused(
            ErrorKind::Configuration,
            format!("{source}: the list is damaged, or of a kind that is not supported"),
            error,
        )),
    }
}

/// Lists of version 1 do not say so: their version is left out.
fn is_version_1(der: &[u8]) -> bool {
    let body = Der::only_sequence(der).and_then(|mut list| list.sequence());
    body.is_some_and(|mut body| body.sequence().is_some())
}

/// An OCSP response as it is, and what in it is worth a warning.
pub(super) fn parse_ocsp(data: Vec<u8>, source: &Source<'_>) -> Result<(Vec<u8>, Vec<String>)> {
    let Some(mut response) = Der::only_sequence(&data) else {
        return Err(source.is(if pem::is_pem(&data) {
            "is a PEM file; an OCSP response is given in DER"
        } else {
            "holds no OCSP response"
        }));
    };
    let status =
        response.bytes(der::ENUMERATED).ok_or_else(|| source.is("holds no OCSP response"))?;
    if status != [0] {
        return Err(source.is("holds the refusal of an OCSP responder, not its response"));
    }
    let warnings = single_response(response)
        .map(|response| warnings(&response, source, ASN1Time::now()))
        .ok_or_else(|| source.is("holds an OCSP response that is damaged"))?;
    Ok((data, warnings))
}

/// What a response says of the certificate. (It is about one; if about more, the first is looked at.)
struct SingleResponse {
    is_revoked: bool,
    next_update: Option<ASN1Time>,
}

/// RFC 6960, section 4.2.1.
fn single_response(mut response: Der<'_>) -> Option<SingleResponse> {
    let mut bytes = response.inner(der::context(0))?.sequence()?;
    let _type = bytes.oid()?;
    let mut data = Der::only_sequence(bytes.octets()?)?.sequence()?;
    let _version = data.bytes(der::context(0));
    let _responder = data.element()?;
    let _produced_at = data.element()?;
    let mut single = data.sequence()?.sequence()?;
    let _certificate = single.sequence()?;
    let status = single.element()?;
    let _this_update = single.element()?;
    let next_update = single.bytes(der::context(0));
    Some(SingleResponse {
        is_revoked: status.tag & 0x1f == 1,
        next_update: next_update.and_then(|time| Some(ASN1Time::from_der(time).ok()?.1)),
    })
}

fn warnings(response: &SingleResponse, source: &Source<'_>, now: ASN1Time) -> Vec<String> {
    let mut warnings = Vec::new();
    if response.is_revoked {
        warnings.push(format!("{source} says that the certificate is revoked"));
    }
    if let Some(next) = response.next_update.filter(|next| *next < now) {
        warnings.push(format!("{source} has been out of date since {}", day(next)));
    }
    warnings
}
