//! The examples that speak in frames, run as a user runs them, with peers that are not ours.

use std::io::{Read, Write};
use std::net::TcpStream;

use onbytes::Framing;

mod support;

use support::examples::{Running, read_line, spoilt};

/// Sends each frame that can be sent from a peer of its own. What is answered does not matter, only that
/// the connection ends.
fn send_each(running: &Running, framing: &Framing, frames: &[Vec<u8>]) {
    let sendable: Vec<_> = frames.iter().filter_map(|frame| framing.encode(frame).ok()).collect();
    assert!(sendable.len() > 100, "most can be sent");
    for frame in sendable {
        running.converse(&frame);
    }
}

// ---- HL7 over MLLP ----

const ADT_A01: &str = "MSH|^~\\&|ADT1|GOOD HEALTH HOSPITAL|GHH LAB, INC.|GOOD HEALTH HOSPITAL|\
    198808181126|SECURITY|ADT^A01^ADT_A01|MSG00001|P|2.8||\r\
    EVN|A01|200708181123||\r\
    PID|1||PATID1234^5^M11^ADT1^MR^GOOD HEALTH HOSPITAL~123456789^^^USSSA^SS||\
    EVERYMAN^ADAM^A^III||19610615|M||C|2222 HOME STREET^^GREENSBORO^NC^27401-1020\r\
    NK1|1|NUCLEAR^NELDA^W|SPO^SPOUSE||||NK^NEXT OF KIN\r\
    PV1|1|I|2000^2012^01||||004777^ATTEND^AARON^A|||SUR||||ADM|A0|\r";

/// With separators that nobody expects.
const ORU_R01: &str = "MSH*:~\\&*GHH LAB*ELAB-3*GHH OE*BLDG4*200202150930**ORU:R01*CNTRL-3456*T*2.4\r\
    PID***555-44-4444**EVERYWOMAN:EVE:E::::L*JONES*19620320*F\r\
    OBR*1*845439:GHH OE*1045813:GHH LAB*15545:GLUCOSE***200202150730\r\
    OBX*1*SN*1554-5:GLUCOSE:POST 12H CFST:MCNC:PT:SER/PLAS:QN**:182*mg/dl*70_105*H***F\r";

/// The segments of the next acknowledgement, each with its fields.
fn acknowledgement(stream: &mut impl Read, separator: char) -> Vec<Vec<String>> {
    let mut block = Vec::new();
    while !block.ends_with(&[0x1C, 0x0D]) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        block.push(byte[0]);
    }
    let text = String::from_utf8(block).unwrap();
    let message = text.strip_prefix('\x0B').unwrap().strip_suffix("\r\x1C\r").unwrap();
    let fields = |segment: &str| segment.split(separator).map(str::to_owned).collect();
    message.split('\r').map(fields).collect()
}

/// The fields of an acknowledgement's MSH but for time and control id, which are its own.
fn without_time_and_id(header: &[String]) -> Vec<&str> {
    let own = |place: &usize| *place == 6 || *place == 9;
    (0..header.len()).filter(|place| !own(place)).map(|place| header[place].as_str()).collect()
}

#[test]
fn mllp_ack_acknowledges_messages_with_the_separators_that_they_declare() {
    let server = Running::start("mllp_ack");
    let mut stream = server.connect();
    let both = format!("\x0B{ADT_A01}\x1C\r\x0B{ORU_R01}\x1C\r");
    for piece in both.as_bytes().chunks(100) {
        stream.write_all(piece).unwrap();
    }

    let admission = acknowledgement(&mut stream, '|');
    let expected = [
        "MSH",
        "^~\\&",
        "GHH LAB, INC.",
        "GOOD HEALTH HOSPITAL",
        "ADT1",
        "GOOD HEALTH HOSPITAL",
        "",
        "ACK^A01^ACK",
        "P",
        "2.8",
    ];
    assert_eq!(without_time_and_id(&admission[0]), expected);
    assert_eq!(admission[1..], [["MSA", "AA", "MSG00001"]]);
    let result = acknowledgement(&mut stream, '*');
    let expected =
        ["MSH", ":~\\&", "GHH OE", "BLDG4", "GHH LAB", "ELAB-3", "", "ACK:R01:ACK", "T", "2.4"];
    assert_eq!(without_time_and_id(&result[0]), expected);
    assert_eq!(result[1..], [["MSA", "AA", "CNTRL-3456"]]);

    let (time, [one, other]) = (&admission[0][6], [&admission[0], &result[0]].map(|it| &it[9]));
    assert_eq!(time.len(), "20260101120000+0000".len(), "{time}");
    assert!(one != other && one.len() == 20, "'{one}' and '{other}' are control ids");
    drop(stream);
    server.stop();
}

#[test]
fn mllp_ack_rejects_what_is_no_message_and_answers_no_answer() {
    let server = Running::start("mllp_ack");
    let mut stream = server.connect();
    let rejected = ["PID|1||PATID1234\r", "", "MSH", "MSH|", "MSHA^~\\&A", "\r", "MSH||X"];
    for message in rejected {
        write!(stream, "\x0B{message}\x1C\r").unwrap();
        let answer = acknowledgement(&mut stream, '|');
        assert_eq!(answer[1], ["MSA", "AR", "", "this is no HL7 message, it has no MSH"]);
    }
    stream.write_all(b"\x0BMSH|^~\\&|A|B|C|D|2026||ADT^A01||P|2.5\r\x1C\r").unwrap();
    let answer = acknowledgement(&mut stream, '|');
    assert_eq!(answer[1], ["MSA", "AR", "", "it has no control id"]);
    // The answer to an acknowledgement would come before the one to what follows it.
    stream.write_all(b"\x0BMSH|^~\\&|A|B|C|D|2026||ACK^A01|7|P|2.5\rMSA|AA|6\r\x1C\r").unwrap();
    stream.write_all(b"\x0BMSH|^~\\&|A|B|C|D|2026||ADT^A01|8|P|2.5\n\x1C").unwrap();
    assert_eq!(acknowledgement(&mut stream, '|')[1], ["MSA", "AA", "8"]);
    drop(stream);
    server.stop();
}

#[test]
fn mllp_ack_survives_messages_without_sense() {
    let server = Running::start("mllp_ack");
    let header = ADT_A01.split_inclusive('\r').next().unwrap();
    send_each(&server, &Framing::mllp(), &spoilt(header.as_bytes()));
    server.stop();
}

// ---- ISO 8583 ----

/// An echo test (301) with both bitmaps, and its answer.
const ECHO_TEST: &[u8] =
    b"\x00\x270800\x82\x20\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\
    0704134512000123301";
const ECHO_ANSWER: &[u8] =
    b"\x00\x290810\x82\x20\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\
    070413451200012300301";

/// One with the first bitmap alone, and its answer.
const SHORT_TEST: &[u8] = b"\x00\x1C0800\x02\x20\x00\x00\x00\x00\x00\x000704134512000124";
const SHORT_ANSWER: &[u8] = b"\x00\x1E0810\x02\x20\x00\x00\x02\x00\x00\x00070413451200012400";

/// `message` with its length before it.
fn iso8583(message: &[u8]) -> Vec<u8> {
    Framing::iso8583().encode(message).unwrap().to_vec()
}

#[test]
fn iso8583_echo_answers_network_management_requests() {
    let server = Running::start("iso8583_echo");
    let mut stream = server.connect();
    for byte in [ECHO_TEST, SHORT_TEST].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answers = vec![0; ECHO_ANSWER.len() + SHORT_ANSWER.len()];
    stream.read_exact(&mut answers).unwrap();
    let expected = [ECHO_ANSWER, SHORT_ANSWER].concat();
    assert_eq!(answers.escape_ascii().to_string(), expected.escape_ascii().to_string());
    drop(stream);
    server.stop();
}

#[test]
fn iso8583_echo_says_format_error_with_what_it_could_read() {
    let server = Running::start("iso8583_echo");
    let unknown = b"0800\x02\x20\x00\x00\x00\x80\x00\x000704134512000123TERM0001";
    let no_digits = b"0800\x02\x20\x00\x00\x00\x00\x00\x00070413451200O123";
    let cut_off = b"0800\x02\x20\x00\x00\x00\x00\x00\x00070413451200";
    let too_long = b"0800\x02\x20\x00\x00\x00\x00\x00\x000704134512000123!";
    let no_bitmap = b"0800\x82\x20\x00\x00\x00\x00\x00\x00";
    let echoes_both = &b"0810\x02\x20\x00\x00\x02\x00\x00\x00070413451200012330"[..];
    let echoes_time = &b"0810\x02\x00\x00\x00\x02\x00\x00\x00070413451230"[..];
    let echoes_nothing = &b"0810\x00\x00\x00\x00\x02\x00\x00\x0030"[..];
    for (request, answer) in [
        (&unknown[..], echoes_both),
        (no_digits, echoes_time),
        (cut_off, echoes_time),
        (too_long, echoes_both),
        (no_bitmap, echoes_nothing),
        (b"0800", echoes_nothing),
    ] {
        // It goes on after a format error.
        let both = [&iso8583(request), SHORT_TEST].concat();
        let expected = [&iso8583(answer), SHORT_ANSWER].concat();
        let answers = server.converse(&both);
        assert_eq!(answers.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
    // What is no such request is the end.
    for message in [&b"0200\x02\x20\x00\x00\x00\x00\x00\x000704134512000123"[..], b"08"] {
        let both = [&iso8583(message), SHORT_TEST].concat();
        assert_eq!(server.converse(&both), b"");
    }
    // A length of zero keeps the line alive.
    assert_eq!(server.converse(&[&iso8583(b""), SHORT_TEST].concat()), SHORT_ANSWER);
    server.stop();
}

#[test]
fn iso8583_echo_survives_messages_without_sense() {
    let server = Running::start("iso8583_echo");
    send_each(&server, &Framing::iso8583(), &spoilt(&ECHO_TEST[2..]));
    send_each(&server, &Framing::iso8583(), &spoilt(&SHORT_TEST[2..]));
    assert_eq!(server.converse(SHORT_TEST), SHORT_ANSWER);
    server.stop();
}

// ---- Syslog ----

#[cfg(any(feature = "tls", feature = "tls-ring"))]
mod syslog {
    use std::io::Write;
    use std::process::Command;

    use onbytes::Framing;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::support::examples::{Running, spoilt};
    use super::support::tls::{Site, connect_foreign};
    use super::support::within;

    /// The examples of RFC 5424, 6.5 and of RFC 3164, 5.4, and others, with what is printed.
    const SYSLOG: [(&str, &str); 12] = [
        (
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed \
         for lonvick on /dev/pts/8",
            "auth.crit mymachine.example.com 'su root' failed for lonvick on /dev/pts/8",
        ),
        (
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the \
         do-nuts.",
            "local4.notice 192.0.2.1 %% It's time to make the do-nuts.",
        ),
        (
            "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 \
         [exampleSDID@32473 iut=\"3\" eventSource=\"a \\\"]\\\" b\"][other@32473 class=\"high\"] An \
         application event",
            "local4.notice mymachine.example.com An application event",
        ),
        (
            "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [x@32473 a=\"3\"]",
            "local4.notice mymachine.example.com ",
        ),
        ("<0>1 - - - - - -", "kern.emerg - "),
        (
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            "auth.crit mymachine su: 'su root' failed for lonvick on /dev/pts/8",
        ),
        ("<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!", "user.notice 10.0.0.99 Use the BFG!"),
        ("Use the BFG!", "user.notice 127.0.0.1 Use the BFG!"),
        ("<191>Use the BFG!", "local7.debug 127.0.0.1 Use the BFG!"),
        ("<192>no priority", "user.notice 127.0.0.1 <192>no priority"),
        ("<13>1 2003 cut off", "user.notice 127.0.0.1 1 2003 cut off"),
        ("<13>a\u{1b}[31m red\u{7} \u{e9}", "user.notice 127.0.0.1 a [31m red  \u{e9}"),
    ];

    #[tokio::test]
    async fn syslog_tls_prints_counted_messages_and_lines() {
        let site = Site::new();
        let files = [&site.server.cert, &site.server.key].map(|path| path.to_str().unwrap());
        let mut sink = Running::start_with("syslog_tls", &files);
        let address = ([127, 0, 0, 1], sink.port).into();
        let mut stream = connect_foreign(address, site.foreign()).await.unwrap();
        for (message, expected) in SYSLOG {
            let counted = format!("{} {message}", message.len());
            stream.write_all(counted.as_bytes()).await.unwrap();
            assert_eq!(sink.printed(), expected);
            for end in ["\n", "\r\n"] {
                stream.write_all(format!("{message}{end}").as_bytes()).await.unwrap();
                assert_eq!(sink.printed(), expected);
            }
        }
        let counted = format!("10000 <13>1 - host - - - - {}", "x".repeat(10_000));
        stream.write_all(&counted.as_bytes()[..10_006]).await.unwrap();
        let printed = sink.printed();
        assert!(printed.starts_with("user.notice host xxx"), "{printed}");
        assert!(printed.ends_with("xxx [cut: it had 10000 bytes]"), "{printed}");
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        within("the end", stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"", "syslog has no answers");
        sink.stop();
    }

    #[test]
    fn syslog_tls_prints_what_logger_sends() {
        let version = Command::new("logger").arg("--version").output();
        if !version.is_ok_and(|version| version.stdout.starts_with(b"logger from util-linux")) {
            let _ = writeln!(std::io::stderr(), "SKIPPED: there is no `logger` of util-linux here");
            return;
        }
        let mut sink = Running::start("syslog_tls");
        let port = sink.port.to_string();
        let to_sink = ["--tcp", "--server", "127.0.0.1", "--port", &port, "-p", "local0.warning"];
        for form in ["--rfc5424", "--rfc3164"] {
            for counting in [&["--octet-count"][..], &[]] {
                let mut logger = Command::new("logger");
                logger.args(to_sink).arg(form).args(counting).arg("a message of two words or more");
                assert!(logger.status().unwrap().success());
                let printed = sink.printed();
                assert!(printed.starts_with("local0.warning "), "{printed}");
                assert!(printed.ends_with("a message of two words or more"), "{printed}");
                assert!(!printed.contains("127.0.0.1"), "logger names its host: {printed}");
            }
        }
        sink.stop();
    }

    #[test]
    fn syslog_tls_survives_messages_without_sense_and_prints_a_line_for_each() {
        let mut sink = Running::start("syslog_tls");
        let counted = Framing::syslog();
        for (sample, _) in [SYSLOG[2], SYSLOG[5]] {
            let frames = spoilt(sample.as_bytes());
            for frame in frames.iter().filter_map(|frame| counted.encode(frame).ok()) {
                sink.converse(&frame);
                sink.printed();
            }
        }
        sink.stop();
    }
}

// ---- Modbus ----

#[tokio::test]
async fn modbus_slave_serves_a_master_that_is_not_ours() {
    use tokio_modbus::ExceptionCode::{IllegalDataAddress, IllegalDataValue, IllegalFunction};
    use tokio_modbus::client::{Reader, Writer, tcp};
    use tokio_modbus::slave::{Slave, SlaveContext};

    let server = Running::start("modbus_slave");
    let address = ([127, 0, 0, 1], server.port).into();
    support::within("the conversation", async {
        let mut master = tcp::connect_slave(address, Slave(17)).await.unwrap();
        assert_eq!(master.read_holding_registers(0, 100).await.unwrap(), Ok(vec![0; 100]));
        assert_eq!(master.write_single_register(3, 0xBEEF).await.unwrap(), Ok(()));
        assert_eq!(master.write_multiple_registers(98, &[1, 2]).await.unwrap(), Ok(()));
        assert_eq!(master.read_holding_registers(2, 3).await.unwrap(), Ok(vec![0, 0xBEEF, 0]));

        // All masters see the same registers, whatever unit they ask for.
        let mut other = tcp::connect(address).await.unwrap();
        assert_eq!(other.read_holding_registers(98, 2).await.unwrap(), Ok(vec![1, 2]));

        let exceptions = [
            (master.read_holding_registers(98, 3).await, IllegalDataAddress),
            (master.read_holding_registers(u16::MAX, 2).await, IllegalDataAddress),
            (master.read_holding_registers(0, 0).await, IllegalDataValue),
            (master.read_holding_registers(0, 126).await, IllegalDataValue),
            (master.read_input_registers(0, 1).await, IllegalFunction),
        ];
        for (answer, exception) in exceptions {
            assert_eq!(answer.unwrap(), Err(exception));
        }
        let outside = master.write_single_register(100, 1).await.unwrap();
        assert_eq!(outside, Err(IllegalDataAddress));
        let outside = master.write_multiple_registers(99, &[7, 8]).await.unwrap();
        assert_eq!(outside, Err(IllegalDataAddress), "and nothing of it is written");
        assert_eq!(master.read_holding_registers(99, 1).await.unwrap(), Ok(vec![2]));

        master.set_slave(Slave(255));
        for number in 0..2000 {
            master.write_single_register(number % 100, number).await.unwrap().unwrap();
            let read = master.read_holding_registers(number % 100, 1).await.unwrap();
            assert_eq!(read, Ok(vec![number]));
        }
    })
    .await;
    server.stop();
}

#[test]
fn modbus_slave_answers_requests_that_come_together_and_survives_those_without_sense() {
    let server = Running::start("modbus_slave");
    let write = b"\x00\x01\x00\x00\x00\x0B\x11\x10\x00\x01\x00\x02\x04\x00\x0A\x01\x02";
    let read = b"\x00\x02\x00\x00\x00\x06\x11\x03\x00\x01\x00\x02";
    // Another protocol, which is not answered, and a count of bytes that is not true.
    let other = b"\x00\x03\x00\x09\x00\x06\x11\x03\x00\x01\x00\x02";
    let false_count = b"\x00\x04\x00\x00\x00\x0B\x11\x10\x00\x01\x00\x02\x05\x00\x0A\x01\x02";
    let answers = server.converse(&[&write[..], read, other, false_count].concat());
    let expected = [
        &b"\x00\x01\x00\x00\x00\x06\x11\x10\x00\x01\x00\x02"[..],
        b"\x00\x02\x00\x00\x00\x07\x11\x03\x04\x00\x0A\x01\x02",
        b"\x00\x04\x00\x00\x00\x03\x11\x90\x03",
    ]
    .concat();
    assert_eq!(answers.escape_ascii().to_string(), expected.escape_ascii().to_string());

    // One without a unit, and one without a function.
    for (length, rest) in [(0, &b""[..]), (1, b"\x11")] {
        let header = [0, 1, 0, 0, 0, length];
        assert_eq!(server.converse(&[&header, rest, read].concat()), b"");
    }
    send_each(&server, &Framing::modbus_tcp(), &spoilt(write));
    send_each(&server, &Framing::modbus_tcp(), &spoilt(read));
    server.stop();
}

// ---- Keys and values ----

fn ask(mut stream: &TcpStream, line: impl AsRef<[u8]>) -> String {
    stream.write_all(&[line.as_ref(), b"\n"].concat()).unwrap();
    read_line(stream).trim_end().to_owned()
}

#[test]
fn kv_keeps_values_for_all_who_connect() {
    let server = Running::start("kv");
    let (one, two) = (server.connect(), server.connect());
    assert_eq!(ask(&one, "GET colour"), "NONE");
    assert_eq!(ask(&one, "SET colour dark green\r"), "OK");
    assert_eq!(ask(&two, "get colour"), "VALUE dark green");
    assert_eq!(ask(&two, "SET size \u{221e}"), "OK");
    assert_eq!(ask(&one, "COUNT"), "2");
    assert_eq!(ask(&one, "DEL colour"), "OK");
    assert_eq!(ask(&one, "DEL colour"), "NONE");
    assert_eq!(ask(&two, "COUNT"), "1");
    for wrong in ["", "SET", "SET key", "GET", "GET a b", "COUNT all", "QUIT now", "HELLO"] {
        let hint = "ERR give SET key value, GET key, DEL key, COUNT or QUIT";
        assert_eq!(ask(&one, wrong), hint, "{wrong}");
    }
    assert_eq!(ask(&one, b"SET key \xFF"), "ERR a line is UTF-8");
    assert_eq!(ask(&one, "QUIT"), "BYE");
    assert_eq!(read_line(&one), "", "the connection ends");
    assert_eq!(ask(&two, "GET size"), "VALUE \u{221e}");
    drop((one, two));
    server.stop();
}

#[test]
fn kv_answers_a_line_that_is_too_long_and_goes_on() {
    let server = Running::start("kv");
    let stream = server.connect();
    let longest = format!("SET key {}", "x".repeat(4096 - 8));
    assert_eq!(ask(&stream, &longest), "OK");
    assert_eq!(ask(&stream, longest + "x"), "ERR 4097 bytes; a line has up to 4096");
    let millions = "y".repeat(3_000_000);
    assert_eq!(ask(&stream, millions), "ERR 3000000 bytes; a line has up to 4096");
    assert_eq!(ask(&stream, "COUNT"), "1");
    drop(stream);
    server.stop();
}

#[test]
fn kv_does_not_do_what_is_cut_off_by_the_end() {
    let server = Running::start("kv");
    let answers = server.converse(b"SET key whole\nSET key wh");
    assert_eq!(answers, b"OK\nERR the last line has no end; it is not done\n");
    assert_eq!(server.converse(b"GET key\nCOUNT\r\nQUIT\nGET key\n"), b"VALUE whole\n1\nBYE\n");
    server.stop();
}

#[test]
fn kv_survives_lines_without_sense_and_answers_each() {
    let server = Running::start("kv");
    for sample in ["SET key value", "GET key", "DEL key", "SET key value\r\r"] {
        for line in spoilt(sample.as_bytes()) {
            let lines = line.split(|byte| *byte == b'\n').count();
            let answers = server.converse(&[&line[..], b"\n"].concat());
            let count = answers.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(count, lines, "{} for {}", answers.escape_ascii(), line.escape_ascii());
        }
    }
    server.stop();
}
