//! Stand-in.
use url::Url;
#[derive(Clone, Debug)]
pub(super) struct Client {
    base: Url,
    http: reqwest::Client,
}
impl Client {
    pub(super) fn new(base: &str) -> Result<Self, String> {
        let base = Url::parse(base).map_err(|_| "not a URL")?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { base, http })
    }
    pub(super) async fn get(
        &self,
        segments: &[&str],
        parameters: &[(&'static str, String)],
    ) -> Result<Vec<u8>, String> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| "x")?
            .pop_if_empty()
            .extend(segments);
        url.query_pairs_mut().extend_pairs(parameters);
        let response = self
            .http
            .get(url)
            .header("accept", "application/json")
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let ok = response.status().is_success();
        let body = response.bytes().await.map_err(|error| error.to_string())?;
        if ok {
            Ok(body.to_vec())
        } else {
            Err(String::from_utf8_lossy(&body).into_owned())
        }
    }
}
