-- ioasim.trace/1 in DuckDB: duckdb < this, or paste what you need.
-- Times are those of the trace's clock, which runs slow if the guest was emulated.

CREATE OR REPLACE MACRO kind_name(k) AS ['dma','map','unmap','invalidate','parent_map',
  'parent_unmap','attach','detach','marker','shadow_map','shadow_unmap','host_invalidate'][k + 1];
CREATE OR REPLACE MACRO has_flag(flags, bit) AS (flags >> bit) & 1 = 1;
CREATE OR REPLACE MACRO scope_name(flags) AS
  ['page','domain','global','context','reset'][(flags >> 12) & 7];
CREATE OR REPLACE MACRO device_name(r) AS CASE WHEN r = 4294967295 THEN '-' ELSE
  printf('%02x:%02x.%x', r >> 8, (r >> 3) & 31, r & 7) END;
CREATE OR REPLACE VIEW trace AS
  SELECT file_row_number AS event, kind_name(kind) AS kind_name,
         device_name(requester) AS device, *
  FROM read_parquet('TRACE', file_row_number = true);

-- Events by kind.
SELECT kind_name, count(*) AS events FROM trace GROUP BY ALL ORDER BY events DESC;

-- Accesses and recorded hit rate by device.
SELECT device, count(*) AS accesses, count(*) FILTER (has_flag(flags, 2)) AS labels,
       round(100.0 * count(*) FILTER (has_flag(flags, 3)) / nullif(labels, 0), 1) AS hit_percent
FROM trace WHERE kind = 0 GROUP BY device ORDER BY device;

-- Invalidations by reach.
SELECT scope_name(flags) AS scope, count(*) AS n, sum(size) // 4096 AS pages
FROM trace WHERE kind = 3 GROUP BY ALL ORDER BY n DESC;

-- IOVA pages mapped most often.
SELECT domain, printf('%#x', addr) AS iova, count(*) AS maps
FROM trace WHERE kind = 1 GROUP BY domain, addr ORDER BY maps DESC, addr LIMIT 10;

-- Lifetime of maps: each to the next unmap that begins where it begins.
SELECT count(*) AS maps, median(t) AS median_ns, quantile_cont(t, 0.9) AS p90_ns
FROM (SELECT kind, lead(kind) OVER w AS next, lead(time_ns) OVER w - time_ns AS t
      FROM trace WHERE kind IN (1, 2) WINDOW w AS (PARTITION BY domain, addr ORDER BY event))
WHERE kind = 1 AND next = 2;

-- Working set: distinct IOVA pages in each of 20 intervals of the trace.
SELECT i, count(*) AS accesses, count(DISTINCT (domain, addr >> 12)) AS pages
FROM (SELECT domain, addr,
             least(19, event * 20 // (SELECT count(*) FROM trace)) AS i
      FROM trace WHERE kind = 0)
GROUP BY i ORDER BY i;

-- Bursts: accesses of one device in a row.
SELECT device, count(*) AS bursts, round(avg(n), 1) AS mean, max(n) AS longest
FROM (SELECT device, count(*) AS n
      FROM (SELECT device, row_number() OVER (ORDER BY event)
                   - row_number() OVER (PARTITION BY device ORDER BY event) AS run
            FROM trace WHERE kind = 0)
      GROUP BY device, run)
GROUP BY device ORDER BY device;
