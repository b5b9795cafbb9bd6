//! Reads a database's definitions from its catalogs: one [`Definition`] for each object that a dump can write, with
//! every expression as the server deparses it.
//!
//! Two databases are equal if their catalogs are. Attributes are compared as strings. The server may print an
//! expression differently after a restore (a cast of an array literal is distributed into its elements, parentheses are
//! regrouped). So if two texts differ, [`super::compare`] lets the copy's server print the source's text, and compares
//! that. This module never rewrites a text itself.
//!
//! It leaves out what a restore does not restore by design (owners, privileges, publications, subscriptions), what the
//! operator creates (members of extensions, and their schema), and what no dump contains (invalid indexes).

use futures::TryStreamExt as _;
use sqlx::{PgConnection, Row as _};

use super::{
    Error,
    definition::{Definition, EXTENSIONS, Kind, own},
    postgres::composed,
};

/// One query for each kind, with the columns name, attributes, text, on, make.
///
/// Texts come from the functions that `pg_dump` uses, without pretty-printing. Names have their schema, because the
/// session's search path is `pg_catalog`.
const QUERIES: [(Kind, &str); 39] = [
    (
        Kind::Schema,
        concat!(
            "SELECT quote_ident(n.nspname) AS name, '' AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_namespace n WHERE n.nspname NOT IN ('public', $1) AND ",
            own!("pg_namespace", "n.oid", "n.oid")
        ),
    ),
    // Without its version: a restore installs the server's version.
    (
        Kind::Extension,
        "SELECT quote_ident(e.extname) AS name, quote_ident(n.nspname) AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make \
         FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace",
    ),
    (
        Kind::Type,
        concat!(
            "SELECT t.oid::regtype::text AS name, format('%s %s %s %s %s', t.typtype, CASE WHEN t.typtype = 'd' THEN ",
            "format('%s %s %s', format_type(t.typbasetype, t.typtypmod), t.typnotnull, NULLIF(t.typcollation, 0)::regcollation) END, ",
            "(SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid), ",
            "(SELECT format('%s %s %s %s %s %s', r.rngsubtype::regtype, r.rngmultitypid::regtype, NULLIF(r.rngcollation, 0)::regcollation, ",
            "(SELECT format('%I.%I', n.nspname, o.opcname) FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace WHERE o.oid = r.rngsubopc), ",
            "NULLIF(r.rngcanonical, 0)::regprocedure, NULLIF(r.rngsubdiff, 0)::regprocedure) FROM pg_range r WHERE r.rngtypid = t.oid), ",
            "CASE WHEN t.typtype = 'b' THEN format('%s %s %s %s %s %s %s', t.typlen, t.typinput, t.typoutput, t.typalign, t.typstorage, t.typcategory, t.typdelim) END) ",
            "AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make FROM pg_type t WHERE (t.typtype IN ('e', 'd', 'r') ",
            "OR t.typtype = 'b' AND t.typcategory <> 'A') AND ",
            own!("pg_type", "t.oid", "t.typnamespace")
        ),
    ),
    (
        Kind::Relation,
        concat!(
            "SELECT format('%I.%I', n.nspname, c.relname) AS name, format('%s %s %s %s %s %s %s %s %s %s %s', c.relkind, c.relpersistence, ",
            "c.reloptions::text, (SELECT t.reloptions::text FROM pg_class t WHERE t.oid = c.reltoastrelid), c.relrowsecurity, c.relforcerowsecurity, ",
            "c.relreplident, NULLIF(c.reloftype, 0)::regtype, pg_get_expr(c.relpartbound, c.oid), ",
            "(SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid), ",
            "(SELECT format('%s %s', s.srvname, f.ftoptions) FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid)) ",
            "AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') ",
            "AND c.relpersistence <> 't' AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::Column,
        concat!(
            "SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname) AS name, format('%s %s %s %s %s %s', ",
            "format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, NULLIF(a.attcollation, 0)::regcollation, ",
            // A child inherits these from its parents when it is created.
            "CASE WHEN a.attinhcount = 0 AND c.relkind IN ('r', 'p', 'm') THEN format('%s %s %s %s', a.attstorage, ",
            "NULLIF(a.attcompression::text, ''), NULLIF(a.attstattarget, -1), ",
            // The server stores an option of its own (`pg_attver`, seen in 17.12).
            "(SELECT string_agg(o, ',') FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg\\_%')) END) AS attributes, ",
            "NULL::text AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace ",
            "WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't' AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::Default,
        concat!(
            "SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname) AS name, '' AS attributes, pg_get_expr(d.adbin, d.adrelid) AS text, ",
            "'' AS \"on\", NULL::text AS make FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum ",
            "JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace ",
            "WHERE a.attgenerated = '' AND NOT a.attisdropped AND c.relpersistence <> 't' AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::Generated,
        concat!(
            "SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname) AS name, a.attgenerated::text AS attributes, ",
            "pg_get_expr(d.adbin, d.adrelid) AS text, c.oid::regclass::text AS \"on\", NULL::text AS make ",
            "FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum ",
            "JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace ",
            "WHERE a.attgenerated <> '' AND NOT a.attisdropped AND c.relpersistence <> 't' AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::PartitionKey,
        concat!(
            "SELECT format('%I.%I', n.nspname, c.relname) AS name, '' AS attributes, pg_get_partkeydef(c.oid) AS text, ",
            "c.oid::regclass::text AS \"on\", NULL::text AS make FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace ",
            "WHERE c.relkind = 'p' AND c.relpersistence <> 't' AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    // From version 18 on; before, NOT NULL is only an attribute of the column.
    (
        Kind::NotNull,
        concat!(
            "SELECT format('%s.%I', k.conrelid::regclass, (SELECT attname FROM pg_attribute WHERE attrelid = k.conrelid AND attnum = k.conkey[1])) ",
            "AS name, format('%s %s', k.convalidated, k.connoinherit) AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_constraint k WHERE k.contype = 'n' AND k.conrelid <> 0 AND ",
            own!("pg_class", "k.conrelid", "k.connamespace")
        ),
    ),
    (
        Kind::Check,
        concat!(
            "SELECT format('%s %I', k.conrelid::regclass, k.conname) AS name, format('%s %s %s', k.convalidated, k.connoinherit, ",
            "CASE WHEN pg_get_constraintdef(k.oid) LIKE '% NOT ENFORCED' THEN 'not enforced' END) AS attributes, ",
            "pg_get_expr(k.conbin, k.conrelid) AS text, k.conrelid::regclass::text AS \"on\", ",
            "format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)) AS make ",
            "FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE k.contype = 'c' AND c.relpersistence <> 't' AND ",
            own!("pg_class", "k.conrelid", "k.connamespace")
        ),
    ),
    (
        Kind::DomainCheck,
        concat!(
            "SELECT format('%s %I', k.contypid::regtype, k.conname) AS name, k.convalidated::text AS attributes, ",
            "pg_get_expr(k.conbin, 0) AS text, k.contypid::regtype::text AS \"on\", ",
            "format('ALTER DOMAIN %s ADD CONSTRAINT %I %s', k.contypid::regtype, k.conname, pg_get_constraintdef(k.oid)) AS make ",
            "FROM pg_constraint k WHERE k.contype = 'c' AND k.contypid <> 0 AND ",
            own!("pg_type", "k.contypid", "k.connamespace")
        ),
    ),
    (
        Kind::DomainDefault,
        concat!(
            "SELECT t.oid::regtype::text AS name, '' AS attributes, pg_get_expr(t.typdefaultbin, 0) AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_type t WHERE t.typtype = 'd' AND t.typdefaultbin IS NOT NULL AND ",
            own!("pg_type", "t.oid", "t.typnamespace")
        ),
    ),
    // Keys and foreign keys. A partition's inherited ones are left out: they are the parent's, and a restore gives them
    // new names. The columns and expressions of an exclusion constraint are part of its index.
    (
        Kind::Constraint,
        concat!(
            "SELECT format('%s %I', k.conrelid::regclass, k.conname) AS name, CASE k.contype WHEN 'x' THEN format('%s %s %s %s %s %s', k.convalidated, k.contype, ",
            "k.condeferrable, k.condeferred, k.conkey::text, (SELECT string_agg(o::regoperator::text, ',') FROM unnest(k.conexclop) o)) ",
            "ELSE format('%s %s %s', k.convalidated, k.contype, regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '')) END AS attributes, ",
            "NULL::text AS text, k.conrelid::regclass::text AS \"on\", ",
            "format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)) AS make ",
            "FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE k.contype IN ('p', 'u', 'x', 'f') ",
            "AND (k.contype <> 'f' OR k.conparentid = 0) AND c.relpersistence <> 't' AND ",
            own!("pg_class", "k.conrelid", "k.connamespace")
        ),
    ),
    // `pg_dump` writes no invalid index, so these are left out. A partitioned index is invalid until every partition's
    // index is attached.
    (
        Kind::Index,
        concat!(
            "SELECT i.indexrelid::regclass::text AS name, format('%s %s %s %s %s %s %s %s %s %s %s %s (%s) %s', i.indrelid::regclass, m.amname, ",
            "i.indisunique, i.indisprimary, i.indisexclusion, i.indnullsnotdistinct, i.indimmediate, i.indisclustered, i.indisreplident, ",
            "i.indisvalid, c.reloptions::text, i.indnkeyatts, (SELECT string_agg(format('%s %s %s %s %s', ",
            "(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = i.indrelid AND attnum = k.attnum AND k.attnum > 0), ",
            "(SELECT format('%I.%I %s', n.nspname, o.opcname, (SELECT string_agg(p, ',') FROM unnest(a.attoptions) p WHERE p NOT LIKE 'pg\\_%')) FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace ",
            "WHERE o.oid = i.indclass[k.at::int - 1]), (SELECT b.oid::regcollation::text FROM pg_collation b WHERE b.oid = i.indcollation[k.at::int - 1]), ",
            "i.indoption[k.at::int - 1], NULLIF(a.attstattarget, -1)), ',' ORDER BY k.at) FROM unnest(i.indkey) WITH ORDINALITY k(attnum, at) ",
            "JOIN pg_attribute a ON a.attrelid = i.indexrelid AND a.attnum = k.at), ",
            "(SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)) AS attributes, NULL::text AS text, ",
            "i.indrelid::regclass::text AS \"on\", pg_get_indexdef(i.indexrelid) AS make ",
            "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam ",
            "WHERE (i.indisvalid OR c.relkind = 'I') AND c.relpersistence <> 't' AND ",
            own!("pg_class", "i.indrelid", "c.relnamespace")
        ),
    ),
    (
        Kind::IndexExpressions,
        concat!(
            "SELECT i.indexrelid::regclass::text AS name, '' AS attributes, pg_get_expr(i.indexprs, i.indrelid) AS text, ",
            "i.indrelid::regclass::text AS \"on\", NULL::text AS make FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid ",
            "WHERE i.indexprs IS NOT NULL AND (i.indisvalid OR c.relkind = 'I') AND c.relpersistence <> 't' AND ",
            own!("pg_class", "i.indrelid", "c.relnamespace")
        ),
    ),
    (
        Kind::IndexPredicate,
        concat!(
            "SELECT i.indexrelid::regclass::text AS name, '' AS attributes, pg_get_expr(i.indpred, i.indrelid) AS text, ",
            "i.indrelid::regclass::text AS \"on\", NULL::text AS make FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid ",
            "WHERE i.indpred IS NOT NULL AND (i.indisvalid OR c.relkind = 'I') AND c.relpersistence <> 't' AND ",
            own!("pg_class", "i.indrelid", "c.relnamespace")
        ),
    ),
    (
        Kind::View,
        concat!(
            "SELECT c.oid::regclass::text AS name, '' AS attributes, pg_get_viewdef(c.oid) AS text, quote_ident(n.nspname) AS \"on\", ",
            "NULL::text AS make FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace ",
            "WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::Function,
        concat!(
            "SELECT p.oid::regprocedure::text AS name, '' AS attributes, pg_get_functiondef(p.oid) AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_proc p WHERE p.prokind <> 'a' AND ",
            own!("pg_proc", "p.oid", "p.pronamespace")
        ),
    ),
    (
        Kind::Aggregate,
        concat!(
            "SELECT p.oid::regprocedure::text AS name, format('%s %s %s %s %s %s %s %s %s %s %s %s %s %s %s %s %s %s %s %s', a.aggkind, ",
            "pg_get_function_arguments(p.oid), p.proparallel, a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, ",
            "a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn, a.aggfinalextra, a.aggmfinalextra, a.aggfinalmodify, a.aggmfinalmodify, ",
            "NULLIF(a.aggsortop, 0)::regoperator, a.aggtranstype::regtype, a.agginitval, NULLIF(a.aggmtranstype, 0)::regtype, a.aggminitval) ",
            "AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make FROM pg_proc p JOIN pg_aggregate a ON a.aggfnoid = p.oid WHERE ",
            own!("pg_proc", "p.oid", "p.pronamespace")
        ),
    ),
    // Of a trigger that a partition inherits, only whether it is enabled is compared: its text is the parent's.
    (
        Kind::Trigger,
        concat!(
            "SELECT format('%s %I', g.tgrelid::regclass, g.tgname) AS name, g.tgenabled::text AS attributes, ",
            "CASE WHEN g.tgparentid = 0 THEN pg_get_triggerdef(g.oid) END AS text, g.tgrelid::regclass::text AS \"on\", ",
            "format('DROP TRIGGER %I ON %s', g.tgname, g.tgrelid::regclass) AS make FROM pg_trigger g ",
            "JOIN pg_class c ON c.oid = g.tgrelid WHERE NOT g.tgisinternal AND c.relpersistence <> 't' AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::Rule,
        concat!(
            "SELECT format('%s %I', r.ev_class::regclass, r.rulename) AS name, r.ev_enabled::text AS attributes, ",
            "pg_get_ruledef(r.oid) AS text, r.ev_class::regclass::text AS \"on\", NULL::text AS make FROM pg_rewrite r ",
            "JOIN pg_class c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN' AND c.relpersistence <> 't' AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::Policy,
        concat!(
            "SELECT format('%s %I', p.polrelid::regclass, p.polname) AS name, format('%s %s', p.polcmd, p.polpermissive) AS attributes, ",
            "NULL::text AS text, p.polrelid::regclass::text AS \"on\", format('CREATE POLICY %I ON %s AS %s FOR %s', p.polname, p.polrelid::regclass, ",
            "CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' ",
            "WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END) || ' TO CURRENT_ROLE' || coalesce(format(' USING (%s)', pg_get_expr(p.polqual, p.polrelid)), '') ",
            "|| coalesce(format(' WITH CHECK (%s)', pg_get_expr(p.polwithcheck, p.polrelid)), '') AS make FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::PolicyUsing,
        concat!(
            "SELECT format('%s %I', p.polrelid::regclass, p.polname) AS name, '' AS attributes, pg_get_expr(p.polqual, p.polrelid) AS text, ",
            "p.polrelid::regclass::text AS \"on\", NULL::text AS make FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid ",
            "WHERE p.polqual IS NOT NULL AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::PolicyCheck,
        concat!(
            "SELECT format('%s %I', p.polrelid::regclass, p.polname) AS name, '' AS attributes, pg_get_expr(p.polwithcheck, p.polrelid) AS text, ",
            "p.polrelid::regclass::text AS \"on\", NULL::text AS make FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid ",
            "WHERE p.polwithcheck IS NOT NULL AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::Sequence,
        concat!(
            "SELECT format('%I.%I', n.nspname, c.relname) AS name, format('%s %s %s %s %s %s %s %s %s', c.relpersistence, s.seqtypid::regtype, ",
            "s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle, ",
            "(SELECT string_agg(format('%s %s.%I', d.deptype, d.refobjid::regclass, a.attname), ',') FROM pg_depend d ",
            "JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid ",
            "AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))) AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence <> 't' AND ",
            own!("pg_class", "c.oid", "c.relnamespace")
        ),
    ),
    (
        Kind::Statistics,
        concat!(
            "SELECT format('%I.%I', n.nspname, x.stxname) AS name, format('%s %s %s %s', x.stxrelid::regclass, x.stxkind::text, ",
            "NULLIF(x.stxstattarget, -1), (SELECT string_agg(quote_ident(a.attname), ',' ORDER BY a.attname COLLATE \"C\") FROM pg_attribute a ",
            "WHERE a.attrelid = x.stxrelid AND a.attnum = ANY (x.stxkeys))) AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_statistic_ext x JOIN pg_namespace n ON n.oid = x.stxnamespace WHERE ",
            own!("pg_statistic_ext", "x.oid", "x.stxnamespace")
        ),
    ),
    (
        Kind::StatisticsExpressions,
        concat!(
            "SELECT format('%I.%I', n.nspname, x.stxname) AS name, '' AS attributes, pg_get_expr(x.stxexprs, x.stxrelid) AS text, ",
            "x.stxrelid::regclass::text AS \"on\", pg_get_statisticsobjdef(x.oid) AS make FROM pg_statistic_ext x JOIN pg_namespace n ON n.oid = x.stxnamespace ",
            "WHERE x.stxexprs IS NOT NULL AND ",
            own!("pg_statistic_ext", "x.oid", "x.stxnamespace")
        ),
    ),
    (
        Kind::Operator,
        concat!(
            "SELECT o.oid::regoperator::text AS name, format('%s %s %s %s %s %s %s %s', o.oprcanmerge, o.oprcanhash, o.oprresult::regtype, ",
            "NULLIF(o.oprcom, 0)::regoperator, NULLIF(o.oprnegate, 0)::regoperator, NULLIF(o.oprcode, 0)::regprocedure, ",
            "NULLIF(o.oprrest, 0)::regprocedure, NULLIF(o.oprjoin, 0)::regprocedure) AS attributes, NULL::text AS text, '' AS \"on\", ",
            "NULL::text AS make FROM pg_operator o WHERE o.oprcode <> 0 AND ",
            own!("pg_operator", "o.oid", "o.oprnamespace")
        ),
    ),
    (
        Kind::OperatorClass,
        concat!(
            "SELECT format('%I.%I %s', n.nspname, o.opcname, m.amname) AS name, format('%s %s %s %s', o.opcintype::regtype, o.opcdefault, ",
            "NULLIF(o.opckeytype, 0)::regtype, (SELECT format('%I.%I', fn.nspname, f.opfname) FROM pg_opfamily f JOIN pg_namespace fn ",
            "ON fn.oid = f.opfnamespace WHERE f.oid = o.opcfamily)) AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace JOIN pg_am m ON m.oid = o.opcmethod WHERE ",
            own!("pg_opclass", "o.oid", "o.opcnamespace")
        ),
    ),
    (
        Kind::OperatorFamily,
        concat!(
            "SELECT format('%I.%I %s', n.nspname, f.opfname, m.amname) AS name, format('%s; %s', ",
            "(SELECT string_agg(format('%s %s %s', p.amopstrategy, p.amopopr::regoperator, p.amoppurpose), ',' ",
            "ORDER BY p.amopstrategy, p.amopopr::regoperator::text COLLATE \"C\") FROM pg_amop p WHERE p.amopfamily = f.oid), ",
            "(SELECT string_agg(format('%s %s', p.amprocnum, p.amproc::regprocedure), ',' ORDER BY p.amprocnum, p.amproc::regprocedure::text COLLATE \"C\") ",
            "FROM pg_amproc p WHERE p.amprocfamily = f.oid)) AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_opfamily f JOIN pg_namespace n ON n.oid = f.opfnamespace JOIN pg_am m ON m.oid = f.opfmethod WHERE ",
            own!("pg_opfamily", "f.oid", "f.opfnamespace")
        ),
    ),
    (
        Kind::Cast,
        "SELECT format('%s to %s', c.castsource::regtype, c.casttarget::regtype) AS name, format('%s %s %s', NULLIF(c.castfunc, 0)::regprocedure, \
         c.castcontext, c.castmethod) AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make FROM pg_cast c WHERE c.oid >= 16384 \
         AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.deptype IN ('e', 'i') AND e.classid = 'pg_cast'::regclass AND e.objid = c.oid)",
    ),
    // Without the version, which is that of the server's libraries. A collation for every encoding is restored as one
    // for the database's encoding.
    (
        Kind::Collation,
        concat!(
            "SELECT c.oid::regcollation::text AS name, ((to_jsonb(c) - 'oid' - 'collname' - 'collnamespace' - 'collowner' - 'collversion' - 'collencoding')::text) ",
            "AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make FROM pg_collation c WHERE ",
            own!("pg_collation", "c.oid", "c.collnamespace")
        ),
    ),
    (
        Kind::Conversion,
        concat!(
            "SELECT format('%I.%I', n.nspname, c.conname) AS name, format('%s %s %s %s', c.conforencoding, c.contoencoding, ",
            "c.conproc::regprocedure, c.condefault) AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make ",
            "FROM pg_conversion c JOIN pg_namespace n ON n.oid = c.connamespace WHERE ",
            own!("pg_conversion", "c.oid", "c.connamespace")
        ),
    ),
    (
        Kind::Dictionary,
        concat!(
            "SELECT d.oid::regdictionary::text AS name, format('%s %s', (SELECT format('%I.%I', n.nspname, t.tmplname) FROM pg_ts_template t ",
            "JOIN pg_namespace n ON n.oid = t.tmplnamespace WHERE t.oid = d.dicttemplate), d.dictinitoption) AS attributes, NULL::text AS text, ",
            "'' AS \"on\", NULL::text AS make FROM pg_ts_dict d WHERE ",
            own!("pg_ts_dict", "d.oid", "d.dictnamespace")
        ),
    ),
    (
        Kind::Configuration,
        concat!(
            "SELECT c.oid::regconfig::text AS name, format('%s %s', (SELECT format('%I.%I', n.nspname, p.prsname) FROM pg_ts_parser p ",
            "JOIN pg_namespace n ON n.oid = p.prsnamespace WHERE p.oid = c.cfgparser), (SELECT string_agg(format('%s %s', m.maptokentype, ",
            "m.mapdict::regdictionary), ',' ORDER BY m.maptokentype, m.mapseqno) FROM pg_ts_config_map m WHERE m.mapcfg = c.oid)) AS attributes, ",
            "NULL::text AS text, '' AS \"on\", NULL::text AS make FROM pg_ts_config c WHERE ",
            own!("pg_ts_config", "c.oid", "c.cfgnamespace")
        ),
    ),
    (
        Kind::Transform,
        "SELECT format('%s %s', t.trftype::regtype, (SELECT lanname FROM pg_language l WHERE l.oid = t.trflang)) AS name, \
         format('%s %s', NULLIF(t.trffromsql, 0)::regprocedure, NULLIF(t.trftosql, 0)::regprocedure) AS attributes, NULL::text AS text, '' AS \"on\", \
         NULL::text AS make FROM pg_transform t WHERE NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.deptype = 'e' \
         AND e.classid = 'pg_transform'::regclass AND e.objid = t.oid)",
    ),
    (
        Kind::Server,
        "SELECT quote_ident(s.srvname) AS name, format('%s %s %s %s', (SELECT fdwname FROM pg_foreign_data_wrapper w WHERE w.oid = s.srvfdw), \
         s.srvtype, s.srvversion, s.srvoptions::text) AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make FROM pg_foreign_server s \
         WHERE NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.deptype = 'e' AND e.classid = 'pg_foreign_server'::regclass AND e.objid = s.oid)",
    ),
    // On every kind above that can have one. A comment on an inherited constraint of a partition goes with it.
    (
        Kind::Comment,
        "SELECT format('%s %s', i.type, i.identity) AS name, d.description AS attributes, NULL::text AS text, '' AS \"on\", NULL::text AS make \
         FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i WHERE d.objoid >= 16384 AND i.identity IS NOT NULL \
         AND d.classoid NOT IN ('pg_extension'::regclass, 'pg_publication'::regclass, 'pg_subscription'::regclass, 'pg_event_trigger'::regclass) \
         AND (i.schema IS NULL OR i.schema NOT LIKE 'pg\\_%') AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.deptype = 'e' \
         AND e.classid = d.classoid AND e.objid = d.objoid) AND NOT (d.classoid = 'pg_class'::regclass AND EXISTS (SELECT 1 FROM pg_class c \
         WHERE c.oid = d.objoid AND (c.relpersistence = 't' OR c.relkind = 'i' AND NOT (SELECT indisvalid FROM pg_index WHERE indexrelid = c.oid)))) \
         AND NOT (d.classoid = 'pg_namespace'::regclass AND i.identity = quote_ident($1))",
    ),
    // Some expressions are printed without the schema of their operator (`IS DISTINCT FROM`, `NULLIF`, `CASE x WHEN`).
    // Under another search path the same text may mean another operator, so this reads which operators are used. The
    // server's own operators have no entry.
    (
        Kind::Dependencies,
        "SELECT format('%s %s', d.i_type, d.i_identity) AS name, string_agg(DISTINCT format('%s %s', r.type, r.identity), ', ') AS attributes, \
         NULL::text AS text, '' AS \"on\", NULL::text AS make FROM (SELECT d.refclassid, d.refobjid, d.refobjsubid, i.type AS i_type, \
         i.identity AS i_identity, i.schema FROM pg_depend d, pg_identify_object(d.classid, d.objid, d.objsubid) i \
         WHERE (d.deptype = 'n' AND d.refclassid IN ('pg_operator'::regclass, 'pg_proc'::regclass) \
         OR d.deptype = 'x' AND d.refclassid = 'pg_extension'::regclass) AND d.objid >= 16384 \
         AND d.classid IN ('pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_trigger'::regclass, 'pg_rewrite'::regclass, \
         'pg_policy'::regclass, 'pg_class'::regclass, 'pg_statistic_ext'::regclass, 'pg_proc'::regclass) \
         AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.deptype = 'e' AND e.classid = d.classid AND e.objid = d.objid) \
         AND NOT EXISTS (SELECT 1 FROM pg_trigger g WHERE d.classid = 'pg_trigger'::regclass AND g.oid = d.objid AND g.tgisinternal) \
         AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE d.classid = 'pg_constraint'::regclass AND k.oid = d.objid AND k.conparentid <> 0) \
         AND NOT EXISTS (SELECT 1 FROM pg_index x WHERE d.classid = 'pg_class'::regclass AND x.indexrelid = d.objid AND NOT x.indisvalid)) AS d, \
         pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) r \
         WHERE d.i_identity IS NOT NULL AND (d.schema IS NULL OR d.schema NOT LIKE 'pg\\_%') AND $1::text IS NOT NULL GROUP BY 1",
    ),
];

/// Reads all definitions that the session's transaction sees, in the order of kinds and names.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn read(connection: &mut PgConnection) -> Result<Vec<Definition>, Error> {
    let mut all = Vec::new();
    for (kind, query) in QUERIES {
        read_kind(connection, kind, query, &mut all).await?;
    }
    Ok(all)
}

async fn read_kind(connection: &mut PgConnection, kind: Kind, query: &str, all: &mut Vec<Definition>) -> Result<(), Error> {
    let failed = |source| Error::Database { step: "read the definitions", source };
    // A query may not use the parameter $1, but the bound parameter must occur in the statement.
    let sorted = format!("SELECT * FROM ({query}) AS definitions WHERE $1::text IS NOT NULL ORDER BY name COLLATE \"C\"");
    let mut rows = sqlx::query(composed(sorted)).bind(EXTENSIONS).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let get = || -> Result<Definition, sqlx::Error> {
            Ok(Definition {
                kind,
                name: row.try_get("name")?,
                attributes: row.try_get::<Option<String>, _>("attributes")?.unwrap_or_default(),
                text: row.try_get("text")?,
                on: row.try_get("on")?,
                make: row.try_get("make")?,
            })
        };
        all.push(get().map_err(failed)?);
    }
    Ok(())
}

/// Reads the definitions of one kind.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn read_only(connection: &mut PgConnection, kind: Kind) -> Result<Vec<Definition>, Error> {
    let mut found = Vec::new();
    for (_, query) in QUERIES.iter().filter(|(of, _)| *of == kind) {
        read_kind(connection, kind, query, &mut found).await?;
    }
    Ok(found)
}
