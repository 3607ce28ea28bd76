use ioasim_events::*; use ioasim_traces::file::*;
fn main(){ let b=std::fs::read("/tmp/lab.bin").unwrap(); let rows:Vec<i64>=b.chunks(8).map(|c|i64::from_le_bytes(c.try_into().unwrap())).collect();
 let mut w=TraceWriter::create(std::path::Path::new("/tmp/real.parquet")).unwrap(); let mut t=0; let s=std::time::Instant::now();
 for r in rows.chunks(11){ t=t.max(r[0] as u64); w.push(&Event{time_ns:t,kind:Kind::from_code(r[1] as i32).unwrap(),flags:Flags(r[2] as u32),cpu:r[3] as i32,domain:DomainId(r[4] as u32),requester:Requester(r[5] as u32),pasid:Pasid(r[6] as u32),addr:r[7] as u64,size:r[8] as u64,out:r[9] as u64,aux:r[10] as u64}).unwrap(); }
 let s2=w.finish(Meta::default()).unwrap(); println!("{:?} {} ev {} B",s.elapsed(),s2.events,s2.file_bytes); }
