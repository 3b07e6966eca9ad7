//! A wait that ends at the right microsecond: Tokio's own timers go by milliseconds.

use std::io;
use std::time::Instant;

#[cfg(target_os = "linux")]
pub(crate) use linux::Alarm;
#[cfg(not(target_os = "linux"))]
pub(crate) use other::Alarm;

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::{Instant, io};

    /// A timer of the system's, for one wait at a time.
    pub(crate) struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        pub(crate) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // It is deprecated for types that do not own their descriptor; this one does, and what takes
            // its place is unsafe.
            #[allow(deprecated)]
            let timer = AsyncFd::new(timer)?;
            Ok(Self(timer))
        }

        pub(crate) async fn wait_until(&self, time: Instant) -> io::Result<()> {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Others get their turn all the same.
                tokio::task::yield_now().await;
                return Ok(());
            }
            self.set(left)?;
            // The next wait sets the timer anew, which clears what could be read.
            self.0.readable().await?.clear_ready();
            Ok(())
        }

        fn set(&self, left: Duration) -> io::Result<()> {
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let time = Itimerspec { it_interval: zero, it_value: value };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &time)?;
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use super::{Instant, io};

    /// The runtime's timer.
    pub(crate) struct Alarm;

    impl Alarm {
        #[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn wait_until(&self, time: Instant) -> io::Result<()> {
            tokio::time::sleep_until(time.into()).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_does_not_end_early_and_can_be_had_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let alarm = Alarm::new().unwrap();
            for micros in [0, 1, 300, 2_000] {
                let time = Instant::now() + Duration::from_micros(micros);
                alarm.wait_until(time).await.unwrap();
                assert!(Instant::now() >= time, "{micros}");
            }
        });
    }
}
