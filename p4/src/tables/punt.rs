//! Table `punt`: what software sees, and how fast.

table! {
    /// An entry of `punt`, with its meter.
    punt => Punt, metered;

    /// Packets that a reason sends to software.
    key PuntKey {
        /// The reason.
        reason: PuntReason = exact 8,
        /// The ingress interface; none: any.
        interface: Option<InterfaceId> = ternary 16,
    }

    /// Where they go.
    action PuntAction {
        /// To the slow path.
        ToSlowPath = to_slow_path {
            /// The switch port that leads there.
            port: SwitchPort = 9,
        },
        /// Nowhere.
        Drop = punt_drop,
    }
}
