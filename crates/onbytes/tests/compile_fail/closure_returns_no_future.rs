use onbytes::{Bytes, service_fn};

fn main() {
    let _echo = service_fn(|_caller| async { Ok(|data: Bytes| Ok(Some(data))) });
}
