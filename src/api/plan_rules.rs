//! Rules about the texts of plans and accounts, as the API server checks them.

/// Rules about schedules.
pub(super) mod schedule {
    /// Each of the five fields of cron has values within its bounds.
    pub fn rule() -> String {
        let bounds = [
            "[0-5]?[0-9]",
            "[01]?[0-9]|2[0-3]",
            "0?[1-9]|[12][0-9]|3[01]",
            "0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)",
            "0?[0-7]|(?i:sun|mon|tue|wed|thu|fri|sat)",
        ];
        let fields = bounds.iter().enumerate().map(|(at, value)| {
            format!("self.split(' ')[{at}].split(',').all(p, p.matches('^([*]|({value})(-({value}))?)(/[1-9][0-9]?)?$'))")
        });
        format!("self.split(' ').size() == 5 && {}", fields.collect::<Vec<_>>().join(" && "))
    }

    /// What is told about a schedule that breaks [`rule`].
    pub const MESSAGE: &str = "schedule has the five fields of cron: minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or JAN-DEC) and day of the week (0-7 or SUN-SAT), such as '0 2 * * *' for 02:00 UTC every day";
    /// A range of numbers does not run backwards.
    pub const RANGES: &str = "self.replace(',', ' ').split(' ').all(p, !p.matches('^[0-9]+-[0-9]+(/[0-9]+)?$') || int(p.split('-')[0]) <= int(p.split('-')[1].split('/')[0]))";
    /// What is told about one that does.
    pub const RANGES_MESSAGE: &str = "a range in schedule runs from the lower number to the higher; write 22-23,0-4 for one over midnight";
}

/// Rules about address ranges.
pub(super) mod cidr {
    /// Every entry is a range.
    pub const RULE: &str = "self.all(c, isCIDR(c))";
    /// What is told about another text.
    pub const MESSAGE: &str = "agentAllow lists ranges in CIDR notation, such as 198.51.100.0/24 or 2001:db8::/48";
    /// Every range is written with its first address: of another address nobody can tell whether the range is meant, or the
    /// address alone.
    pub const WHOLE: &str = "self.all(c, !isCIDR(c) || cidr(c) == cidr(c).masked())";
    /// What is told about another address.
    pub const WHOLE_MESSAGE: &str = "agentAllow has an address that is not the first of its range: write 10.0.0.0/8 for the whole range, or 10.0.0.5/32 (IPv6: /128) for the one address 10.0.0.5";
}
