//! Defaults of flowcontrol.apiserver.k8s.io.

use super::{Fields, absent, ensure, inside, number};

pub(super) fn flow_schema(object: &mut Fields) {
    ensure(object, "spec", |spec| number(spec, "matchingPrecedence", 1000));
}

pub(super) fn priority_level(object: &mut Fields) {
    inside(object, "spec", |spec| {
        inside(spec, "exempt", |exempt| {
            absent(exempt, "nominalConcurrencyShares", 0);
            absent(exempt, "lendablePercent", 0);
        });
        inside(spec, "limited", |limited| {
            absent(limited, "nominalConcurrencyShares", 30);
            absent(limited, "lendablePercent", 0);
            inside(limited, "limitResponse", |response| {
                inside(response, "queuing", |queuing| {
                    number(queuing, "handSize", 8);
                    number(queuing, "queues", 64);
                    number(queuing, "queueLengthLimit", 50);
                });
            });
        });
    });
}
