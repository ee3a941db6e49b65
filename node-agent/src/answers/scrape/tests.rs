//! Bodies as Kongs write them, in pieces, and bodies that no Kong writes.

use proptest::prelude::*;

use super::*;

/// A node of Kong 3.9, shortened.
const SINCE_3: &str = r#"# HELP kong_bandwidth_bytes Total bandwidth (ingress/egress) throughput in bytes
# TYPE kong_bandwidth_bytes counter
kong_bandwidth_bytes{service="s1",route="r1",direction="egress",workspace="default",consumer=""} 2220
# HELP kong_http_requests_total HTTP status codes per consumer/service/route in Kong
# TYPE kong_http_requests_total counter
kong_http_requests_total{service="",route="r2",code="503",source="kong",workspace="default",consumer=""} 3
kong_http_requests_total{service="s1",route="r1",code="200",source="service",workspace="default",consumer=""} 12
kong_http_requests_total{service="s1",route="r1",code="500",source="kong",workspace="default",consumer="jo"} 4
kong_http_requests_total{service="s1",route="r1",code="502",source="service",workspace="default",consumer=""} 1
# TYPE kong_request_latency_ms histogram
kong_request_latency_ms_bucket{service="s1",route="r1",workspace="default",le="25"} 5
kong_request_latency_ms_bucket{service="s1",route="r1",workspace="default",le="+Inf"} 15
kong_request_latency_ms_count{service="s1",route="r1",workspace="default"} 15
kong_request_latency_ms_sum{service="s1",route="r1",workspace="default"} 1500
kong_nginx_requests_total{node_id="x",subsystem="http"} 99
kong_nginx_metric_errors_total 0
"#;

/// Before 3.0; what consumers were answered is counted once more under another name.
const BEFORE_3: &str = r#"# TYPE kong_http_consumer_status counter
kong_http_consumer_status{service="s1",route="r1",code="500",consumer="jo"} 9
# TYPE kong_http_status counter
kong_http_status{service="s1",route="r1",code="200"} 7
kong_http_status{service="s1",route="r1",code="504"} 2
kong_http_status_total 100
kong_latency_bucket{service="s1",route="r1",type="kong",le="00001.0"} 4
"#;

fn scraped(text: &str) -> Option<(u64, u64)> {
    let mut scrape = Scrape::default();
    scrape.feed(text.as_bytes());
    scrape.end().map(|answers| (answers.all, answers.failed))
}

#[test]
fn both_ways_to_count_are_read() {
    assert_eq!(scraped(SINCE_3), Some((20, 8)));
    assert_eq!(scraped(BEFORE_3), Some((9, 2)));
}

#[test]
fn who_does_not_count_says_nothing() {
    for text in [
        "",
        "\n\n",
        "<html><body>kong_http_requests_total{code=\"500\"} 3</body></html>",
        "kong_http_requests_total 3\n",
        "kong_http_requests_totals{code=\"500\"} 3\n",
        "kong_http_statu",
        "kong_datastore_reachable 1\nkong_nginx_metric_errors_tota 0\n",
        "# kong_http_status{code=\"500\"} 3\n",
    ] {
        assert_eq!(scraped(text), None, "{text:?}");
    }
}

#[test]
fn names_may_have_anything_in_them() {
    for (line, expected) in [
        (r#"kong_http_status{service="a\"b,code=\"500\"",route="}{",code="200"} 3"#, Some((3, 0))),
        (r#"kong_http_status{service="a\\",route="\\\"",code="503"} 3"#, Some((3, 3))),
        (r#"kong_http_status{code="500"} 1e+03"#, Some((1000, 1000))),
        (r#"kong_http_status{code="500"} 2 1700000000000"#, Some((2, 2))),
        (r#"kong_http_status{code="500",} 2"#, Some((2, 2))),
        // Not over, not a number, nothing that anybody counted.
        (r#"kong_http_status{code="500"}"#, None),
        (r#"kong_http_status{code="500""#, None),
        (r#"kong_http_status{code="500\"#, None),
        (r#"kong_http_status{code=500} 2"#, None),
        (r#"kong_http_status{code="500"} NaN"#, None),
        (r#"kong_http_status{code="500"} -1"#, None),
        (r#"kong_http_status{code="500"} 1e300"#, None),
        (r#"kong_http_status{service="x"} 4"#, Some((4, 0))),
    ] {
        assert_eq!(scraped(line), expected, "{line}");
    }
}

#[test]
fn a_line_without_an_end_is_not_held() {
    let mut scrape = Scrape::default();
    scrape.feed(b"kong_http_status{service=\"");
    for _ in 0..1_000 {
        scrape.feed(&[b'x'; 4096]);
        assert!(scrape.line.len() <= MAX_LINE + 1);
    }
    scrape.feed(b"\",code=\"500\"} 3\nkong_http_status{code=\"500\"} 2\n");
    assert_eq!(scrape.end(), Some(Answers { all: 2, failed: 2 }));
}

proptest! {
    #[test]
    fn however_it_comes_it_is_the_same(cuts in prop::collection::vec(0..SINCE_3.len(), 0..9), old in any::<bool>()) {
        let text = if old { BEFORE_3 } else { SINCE_3 }.as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let mut scrape = Scrape::default();
        cuts.windows(2).for_each(|cut| scrape.feed(&text[cut[0]..cut[1]]));
        let whole = scrape.end().map(|a| (a.all, a.failed));
        prop_assert_eq!(whole, if old { Some((9, 2)) } else { Some((20, 8)) });
    }

    #[test]
    fn garbage_is_no_trouble(bytes in prop::collection::vec(any::<u8>(), 0..400), line in "kong_http_status\\{[a-z=\",\\\\{}]{0,40}[ 0-9e.+-]{0,9}\n") {
        let mut scrape = Scrape::default();
        scrape.feed(line.as_bytes());
        scrape.feed(&bytes);
        let counted = scrape.end();
        prop_assert!(counted.is_none_or(|a| a.failed <= a.all));
    }
}

#[test]
fn what_nothing_was_counted_of_yet_stands_at_zero() {
    let text = "kong_datastore_reachable 1\nkong_nginx_metric_errors_total 0\n";
    for piece in 1..text.len() {
        let mut scrape = Scrape::default();
        text.as_bytes().chunks(piece).for_each(|bytes| scrape.feed(bytes));
        assert_eq!(scrape.end(), Some(Answers::default()), "in pieces of {piece}");
    }
}
